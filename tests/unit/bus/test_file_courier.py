"""The file courier over real sockets: files arrive byte for byte, whatever is lost, late, refused or changed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.file_receiver import FileReceiver

from allranks_bus.addresses import Address
from allranks_bus.files.courier import Fate, FileCourier, Outcome, Parcel
from allranks_bus.files.search import Found
from allranks_bus.files.source import state_of
from allranks_bus.wire import Abort, Chunk, End, FileAt, Offer, Up

MIB = 1024 * 1024
_PATIENCE_S = 60.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def _courier(address: Address) -> Generator[FileCourier]:
    with contextlib.closing(FileCourier()) as courier:
        courier.connect(address)
        yield courier


def _parcel(root: Path, name: str, content: bytes | None = None) -> Parcel:
    path = root / name
    if content is not None:
        path.write_bytes(content)
    found = Found(str(path), name, str(root), state_of(path.stat()))
    return Parcel(found, "run-1", "project", "launch-1", "host-1", 3, os.getuid())


def _carry(courier: FileCourier, *parcels: Parcel, until: Callable[[], bool] | None = None) -> list[Outcome]:
    """Carries until all has ended, or `until` says so; how it ended."""
    for parcel in parcels:
        courier.add(parcel)
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + _PATIENCE_S
    while not courier.is_idle and not (until is not None and until()):
        assert time.monotonic() < deadline, "nothing comes of it"
        courier.pump()
        courier.wait(0.01)
        courier.hear()
        outcomes += courier.outcomes()
    return outcomes + courier.outcomes()


def _lose(receiver: FileReceiver, kind: type[Up], times: int = 1) -> None:
    """The first messages of this kind never arrive."""
    left = times

    def answer(message: Up) -> bool:
        nonlocal left
        if isinstance(message, kind) and left:
            left -= 1
            receiver.heard.remove(message)
            return True
        return False

    receiver.answer = answer


def test_a_file_arrives_with_all_that_is_told_of_it(root: Path, address: Address) -> None:
    parcel = _parcel(root, "a", b"content")
    with FileReceiver(address) as receiver, _courier(address) as courier:
        (outcome,) = _carry(courier, parcel)
    assert outcome.fate is Fate.STORED
    assert len(outcome.text) == 64
    assert receiver.content("a") == b"content"
    (offer,) = receiver.offers
    state = parcel.found.state
    assert (offer.run, offer.project, offer.launch, offer.host) == ("run-1", "project", "launch-1", "host-1")
    assert (offer.name, offer.size, offer.modified_ns, offer.rank) == ("a", 7, state.modified_ns, 3)
    assert courier.stored_bytes == 7


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 40 * MIB])
def test_files_of_all_sizes_arrive_byte_for_byte(root: Path, tcp_address: Address, size: int) -> None:
    content = os.urandom(size)
    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        (outcome,) = _carry(courier, _parcel(root, "a", content))
    assert outcome.fate is Fate.STORED
    assert receiver.content("a") == content
    assert sum(len(chunk.body) for chunk in receiver.chunks()) == size


def test_many_small_files_do_not_wait_for_each_other(root: Path, tcp_address: Address) -> None:
    """Dozens are offered before the first of them is stored."""
    parcels = [_parcel(root, f"f{number}", b"%d" % number) for number in range(60)]
    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        outcomes = _carry(courier, *parcels)
    assert {outcome.fate for outcome in outcomes} == {Fate.STORED}
    assert len(receiver.names) == 60
    first_end = next(at for at, message in enumerate(receiver.heard) if isinstance(message, End))
    assert sum(isinstance(message, Offer) for message in receiver.heard[:first_end]) > 30


def test_a_small_file_passes_a_large_one(root: Path, tcp_address: Address) -> None:
    large = _parcel(root, "large", bytes(60 * MIB))
    small = _parcel(root, "small", b"x")
    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        courier.add(large)
        _carry(courier, until=lambda: bool(receiver.chunks()))
        outcomes = _carry(courier, small)
    assert [outcome.parcel for outcome in outcomes] == [small, large]


def test_there_is_room_for_few_large_files_and_many_small_ones(root: Path, tcp_address: Address) -> None:
    sparse = root / "sparse"
    sparse.touch()
    os.truncate(sparse, 100 * MIB)
    with contextlib.closing(FileCourier()) as courier:
        large = small = 0
        while courier.has_room_for(100 * MIB):
            sparse.rename(sparse := root / f"large{large}")
            courier.add(_parcel(root, sparse.name))
            large += 1
        while courier.has_room_for(10):
            courier.add(_parcel(root, f"small{small}", b"x"))
            small += 1
    assert (large, large + small) == (4, 64)


def test_a_file_that_is_carried_already_is_known(root: Path, tcp_address: Address) -> None:
    with contextlib.closing(FileCourier()) as courier:
        parcel = _parcel(root, "a", b"x")
        assert not courier.carries(parcel)
        courier.add(parcel)
        assert courier.carries(_parcel(root, "a"))


def test_a_file_that_several_hosts_see_is_one_file(root: Path, tcp_address: Address) -> None:
    """It is sent by the first of them; those of hosts that do not share it are different, however alike."""
    parcel = _parcel(root, "a", b"x")
    shared = replace(parcel, found=parcel.found._replace(is_shared=True))
    elsewhere = replace(shared, host="host-2")
    assert replace(parcel, host="host-2").transfer != parcel.transfer
    with FileReceiver(tcp_address) as receiver:
        for each in (shared, elsewhere):
            with _courier(tcp_address) as courier:
                assert [outcome.fate for outcome in _carry(courier, each)] == [Fate.STORED]
    assert len(receiver.chunks()) == 1


# -- what is lost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Offer, Chunk, End])
def test_a_message_that_is_lost_costs_no_byte(root: Path, tcp_address: Address, kind: type[Up]) -> None:
    content = os.urandom(20 * MIB)
    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        _lose(receiver, kind)
        (outcome,) = _carry(courier, _parcel(root, "a", content))
    assert outcome.fate is Fate.STORED
    assert receiver.content("a") == content


def test_a_gap_is_mended_without_sending_all_again(root: Path, tcp_address: Address) -> None:
    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        _lose(receiver, Chunk)
        _carry(courier, _parcel(root, "a", bytes(40 * MIB)))
    assert len(receiver.chunks()) < 40 + 17


def test_a_collector_that_comes_late_gets_all(root: Path, address: Address) -> None:
    with _courier(address) as courier:
        courier.add(_parcel(root, "a", b"content"))
        for _ in range(20):
            courier.pump()
            courier.wait(0.01)
        with FileReceiver(address) as receiver:
            _carry(courier)
    assert receiver.content("a") == b"content"


def test_a_collector_that_was_gone_gets_the_rest(root: Path, tcp_address: Address) -> None:
    """From where it was, and not from the start."""
    content = os.urandom(60 * MIB)
    receiver = FileReceiver(tcp_address)
    with _courier(tcp_address) as courier:
        with receiver:
            _carry(courier, _parcel(root, "a", content), until=lambda: len(receiver.chunks()) > 10)
        before = len(receiver.chunks())
        with receiver:
            _carry(courier)
    assert receiver.content("a") == content
    again = receiver.chunks()[before:]
    assert min(chunk.offset for chunk in again) > 0


def test_another_process_goes_on_where_one_was_killed(root: Path, tcp_address: Address) -> None:
    content = os.urandom(60 * MIB)
    with FileReceiver(tcp_address) as receiver:
        with _courier(tcp_address) as courier:
            _carry(courier, _parcel(root, "a", content), until=lambda: len(receiver.chunks()) > 10)
        before = len(receiver.chunks())
        with _courier(tcp_address) as courier:
            _carry(courier, _parcel(root, "a"))
    assert receiver.content("a") == content
    senders = {chunk.sender for chunk in receiver.chunks()}
    assert len(senders) == 2
    assert all(chunk.offset for chunk in receiver.chunks()[before + 17 :])


def test_a_file_that_is_stored_already_is_not_sent_again(root: Path, tcp_address: Address) -> None:
    with FileReceiver(tcp_address) as receiver:
        for _ in range(2):
            with _courier(tcp_address) as courier:
                (outcome,) = _carry(courier, _parcel(root, "a", b"x") if not receiver.names else _parcel(root, "a"))
                assert outcome.fate is Fate.STORED
    assert len(receiver.chunks()) == 1


def test_a_collector_that_lets_it_wait_is_known_to_live(root: Path, tcp_address: Address) -> None:
    """It answers beats, and nothing else."""

    def wait_in_line(message: Up) -> bool:
        return isinstance(message, Offer)

    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        receiver.answer = wait_in_line
        _carry(courier, _parcel(root, "a", b"x"), until=lambda: courier.heard_at is not None)
        assert courier.moved_at == float("-inf")


# -- what is not sent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("is_final", "fate"), [(True, Fate.NEVER), (False, Fate.NOT_NOW)])
def test_what_the_collector_refuses_is_told(root: Path, tcp_address: Address, is_final: bool, fate: Fate) -> None:
    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        receiver.refuse("no space left", is_final=is_final)
        (outcome,) = _carry(courier, _parcel(root, "a", b"x"))
    assert (outcome.fate, outcome.text) == (fate, "no space left")


@pytest.mark.parametrize("size", [10, 30 * MIB])
def test_a_file_that_changes_while_it_is_sent_leaves_nothing(root: Path, tcp_address: Address, size: int) -> None:
    parcel = _parcel(root, "a", bytes(size))

    def change(message: Up) -> bool:
        if isinstance(message, Offer):
            with (root / "a").open("ab") as file:
                file.write(b"more")
        return False

    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        receiver.answer = change
        (outcome,) = _carry(courier, parcel)
        deadline = time.monotonic() + _PATIENCE_S
        while not any(isinstance(message, Abort) for message in receiver.heard):
            assert time.monotonic() < deadline
        assert outcome.fate is Fate.CHANGED
    assert not receiver.names
    assert not receiver.arrivals


def test_a_file_that_changes_before_its_last_piece_is_sent_leaves_nothing(root: Path, tcp_address: Address) -> None:
    """The window holds that one back until the file has changed."""
    parcel = _parcel(root, "a", bytes(17 * MIB))

    def change(message: Up) -> bool:
        if isinstance(message, Chunk) and message.offset == 15 * MIB:
            os.utime(root / "a", ns=(1, 1))
            receiver.tell(message.sender, FileAt(message.transfer, 16 * MIB))
        return isinstance(message, Chunk)

    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        receiver.answer = change
        (outcome,) = _carry(courier, parcel)
    assert outcome.fate is Fate.CHANGED
    assert not any(isinstance(message, End) for message in receiver.heard)


def test_a_file_that_is_gone_is_told_as_gone(root: Path, tcp_address: Address) -> None:
    parcel = _parcel(root, "a", b"x")
    (root / "a").unlink()
    with FileReceiver(tcp_address), _courier(tcp_address) as courier:
        (outcome,) = _carry(courier, parcel)
    assert outcome.fate is Fate.GONE


def test_a_file_that_cannot_be_read_is_told(
    root: Path, tcp_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what the system says."""

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    parcel = _parcel(root, "a", b"x")
    monkeypatch.setattr("allranks_bus.files.source.open_file", fail)
    with FileReceiver(tcp_address), _courier(tcp_address) as courier:
        (outcome,) = _carry(courier, parcel)
    assert (outcome.fate, outcome.text) == (Fate.NOT_NOW, "it cannot be read: Input/output error")


def test_a_file_of_another_user_is_never_sent(root: Path, tcp_address: Address) -> None:
    parcel = _parcel(root, "a", b"x")
    foreign = replace(parcel, owner=os.getuid() + 1)
    with FileReceiver(tcp_address) as receiver, _courier(tcp_address) as courier:
        (outcome,) = _carry(courier, foreign)
    assert outcome.fate is Fate.NEVER
    assert not receiver.chunks()


def test_close_never_waits_for_the_network_and_leaves_nothing_open(root: Path, tcp_address: Address) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    receiver = FileReceiver(tcp_address)
    with receiver:
        courier = FileCourier()
        courier.connect(tcp_address)
        _carry(courier, _parcel(root, "a", bytes(60 * MIB)), until=lambda: len(receiver.chunks()) > 3)
    began = time.monotonic()
    courier.close()
    assert time.monotonic() - began < _PATIENCE_S / 2
    assert len(list(Path("/proc/self/fd").iterdir())) == before
