"""The desk on real sockets, on asyncio and on trio: files come in beside the events, and hold none of them up."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import pytest
from tests.support.file_senders import CHUNK_BYTES, FileSender, file_sender
from tests.support.pipelines import Peer, ipc_address, peer, running
from tests.support.writers import HandWriter, numbers

from allranks_bus.addresses import Address
from allranks_bus.wire import FileAt, FileRefused, FileStored
from allranks_collector import file_desk, turns
from allranks_collector.file_rows import record
from allranks_collector.file_writer import FileWriter
from allranks_collector.files import FileStore
from allranks_collector.store import Store
from allranks_collector.turns import MAX_LARGE, WINDOW_BYTES

pytestmark = pytest.mark.anyio

T = TypeVar("T")
BODY = random.Random(1).randbytes(3 * CHUNK_BYTES + 17)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@pytest.fixture
def address() -> Generator[Address]:
    with ipc_address() as address:
        yield address


async def _do(function: Callable[..., T], *arguments: Any, **more: Any) -> T:
    """Calls it in a thread: the sender waits, and the loop goes on."""
    return await anyio.to_thread.run_sync(partial(function, *arguments, **more))


async def _until(fact: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not await anyio.to_thread.run_sync(fact):
            await anyio.sleep(0.01)


async def _begin_run(one: Peer) -> None:
    """Makes the run known."""
    await one.meet()
    one.send(one.writer.batch([one.writer.open()]))
    await one.hear_position(1)


def _rows(store: Store) -> list[tuple[str, str, int]]:
    with store.cursor() as cursor:
        return cursor.execute("SELECT name, digest, size FROM files ORDER BY rowid").fetchall()


def _blob(store: Store, body: bytes) -> Path:
    return FileStore(store.path.parent / "files").blob(_digest(body))


async def test_a_file_that_is_said_to_be_stored_is_listed_and_there(store: Store, address: Address) -> None:
    notes: list[tuple[str, str]] = []

    def note(topic: str, run: str, _data: Mapping[str, Any]) -> None:
        notes.append((topic, run))

    async with running(store, address, publish=note) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            stored = await _do(sender.send, "checkpoints/a.ckpt", BODY)
            assert stored == FileStored(sender.transfer_of("checkpoints/a.ckpt", len(BODY)), _digest(BODY))
            assert _rows(store) == [("checkpoints/a.ckpt", _digest(BODY), len(BODY))]
            assert _blob(store, BODY).read_bytes() == BODY
            assert pipeline.files.arriving("run-1") == []
            assert not pipeline.files.is_busy
            assert pipeline.files.counters.stored_bytes == len(BODY)
            assert ("files", "run-1") in notes


async def test_files_of_several_senders_come_in_at_once(store: Store, address: Address) -> None:
    bodies = [random.Random(number).randbytes(2 * CHUNK_BYTES + number) for number in range(6)]
    async with running(store, address):
        with peer(address, HandWriter()) as one:
            await _begin_run(one)

            async def send(number: int) -> None:
                with file_sender(address, number + 1) as sender:
                    assert isinstance(await _do(sender.send, f"file-{number}", bodies[number]), FileStored)

            async with anyio.create_task_group() as task_group:
                for number in range(len(bodies)):
                    task_group.start_soon(send, number)
    assert sorted(_rows(store)) == [(f"file-{n}", _digest(body), len(body)) for n, body in enumerate(bodies)]


async def test_a_file_that_came_before_its_run_is_listed_once_that_is_known(store: Store, address: Address) -> None:
    async with running(store, address) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            transfer = sender.transfer_of("a", 3)
            assert await _do(sender.open, "a", 3) == FileAt(transfer, 0)
            sender.chunk(transfer, 0, b"abc")
            sender.end(transfer, 3)
            await _until(lambda: pipeline.files.arriving("run-1")[0]["offset"] == 3)
            assert _rows(store) == []
            await _begin_run(one)
            assert await _do(sender.hear_end) == FileStored(transfer, _digest(b"abc"))
            assert _rows(store) == [("a", _digest(b"abc"), 3)]


async def test_a_file_whose_run_does_not_come_is_refused_for_now_and_not_lost(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_desk, "_HOMELESS_S", 0.2)
    async with running(store, address) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            refused = await _do(sender.send, "a", BODY)
            transfer = sender.transfer_of("a", len(BODY))
            assert refused == FileRefused(transfer, "no run run-1 is known here yet", is_final=False)
            assert not pipeline.files.is_busy
            await _begin_run(one)
            # Nothing of it has to be sent again.
            assert await _do(sender.open, "a", len(BODY)) == FileAt(transfer, len(BODY))
            sender.end(transfer, len(BODY))
            assert await _do(sender.hear_end) == FileStored(transfer, _digest(BODY))


async def test_what_is_stored_is_known_also_to_the_next_collector(store: Store, address: Address) -> None:
    with file_sender(address) as sender:
        stored = FileStored(sender.transfer_of("a", 3), _digest(b"abc"))
        async with running(store, address):
            with peer(address, HandWriter()) as one:
                await _begin_run(one)
                assert await _do(sender.send, "a", b"abc") == stored
                assert await _do(sender.open, "a", 3) == stored
        async with running(store, address):
            assert await _do(sender.open, "a", 3) == stored
            assert len(_rows(store)) == 1


async def test_a_file_is_gone_on_with_after_a_new_start(store: Store, address: Address) -> None:
    with peer(address, HandWriter()) as one, file_sender(address) as sender:
        transfer = sender.transfer_of("a", len(BODY))
        async with running(store, address) as pipeline:
            await _begin_run(one)
            await _do(sender.open, "a", len(BODY))
            for begin in (0, CHUNK_BYTES):
                sender.chunk(transfer, begin, BODY[begin : begin + CHUNK_BYTES])
            await _until(lambda: pipeline.files.counters.received_bytes == 2 * CHUNK_BYTES)
        async with running(store, address) as pipeline:
            with file_sender(address, 2) as other:  # by somebody else, for that matter
                assert await _do(other.open, "a", len(BODY)) == FileAt(transfer, 2 * CHUNK_BYTES)
                assert isinstance(await _do(other.send, "a", BODY), FileStored)
            assert pipeline.files.counters.received_bytes == len(BODY) - 2 * CHUNK_BYTES
    assert _blob(store, BODY).read_bytes() == BODY


async def test_where_something_is_missing_or_damaged_it_is_asked_for_once(store: Store, address: Address) -> None:
    async with running(store, address):
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            transfer = sender.transfer_of("a", 3000)
            await _do(sender.open, "a", 3000)
            sender.chunk(transfer, 0, bytes(1000))
            assert await _do(sender.hear) == FileAt(transfer, 1000)
            for _ in range(10):
                sender.chunk(transfer, 2000, bytes(1000))
            sender.chunk(transfer, 1000, bytes(1000), crc32=1)
            sender.end(transfer, 3000)
            assert await _do(sender.hear) == FileAt(transfer, 1000)
            assert await _do(sender.hear_maybe, 0.3) is None
            sender.chunk(transfer, 1000, bytes(2000))
            sender.end(transfer, 3000)
            assert await _do(sender.hear_end) == FileStored(transfer, _digest(bytes(3000)))


async def test_a_file_that_is_given_up_leaves_nothing(store: Store, address: Address) -> None:
    async with running(store, address) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            transfer = sender.transfer_of("a", 3000)
            await _do(sender.open, "a", 3000)
            sender.chunk(transfer, 0, bytes(1000))
            sender.abort(transfer)
            assert await _do(sender.open, "a", 3000) == FileAt(transfer, 0)
            sender.abort(transfer)
            await _until(lambda: not pipeline.files.is_busy)
    assert [path for path in (store.path.parent / "files").rglob("*") if path.is_file()] == []


async def test_a_file_that_goes_back_to_what_it_was_is_listed_so(store: Store, address: Address) -> None:
    async with running(store, address):
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            for body, modified_ns in ((b"first", 1), (b"second", 2), (b"first", 1)):
                stored = await _do(sender.send, "a", body, modified_ns=modified_ns)
                assert stored == FileStored(sender.transfer_of("a", len(body), modified_ns), _digest(body))
                assert _rows(store)[-1] == ("a", _digest(body), len(body))


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a//b", "", "a\\b", "a\nb", "x" * 1025])
async def test_a_name_that_leads_out_is_refused_for_ever(store: Store, address: Address, name: str) -> None:
    async with running(store, address) as pipeline:
        with file_sender(address) as sender:
            refused = await _do(sender.open, name, 3)
            assert isinstance(refused, FileRefused)
            assert refused.is_final
            assert "no file can be stored as" in refused.reason
            assert not pipeline.files.is_busy
    assert not (store.path.parent / "files").exists()


async def test_a_file_that_is_too_large_is_refused_for_ever(store: Store, address: Address) -> None:
    async with running(store, address, max_file_bytes=1000):
        with file_sender(address) as sender:
            refused = await _do(sender.open, "a", 1001)
            assert isinstance(refused, FileRefused)
            assert (refused.is_final, refused.reason) == (
                True,
                "a file has at most 1,000 bytes here, and this one has 1,001",
            )
            assert isinstance(await _do(sender.open, "a", 1000), FileAt)


async def test_a_transfer_is_one_files(store: Store, address: Address) -> None:
    async with running(store, address):
        with file_sender(address) as sender:
            transfer = sender.transfer_of("a", 1000)
            await _do(sender.open, "a", 1000)
            sender.offer("b", 1000, transfer=transfer)
            assert await _do(sender.hear) == FileRefused(transfer, "this transfer is another file's", is_final=True)
            sender.offer("a", 1000, rank=None)  # sent by another process, of no rank
            assert await _do(sender.hear) == FileAt(transfer, 0)


async def test_without_room_a_file_waits_and_events_do_not(
    store: Store, address: Address, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileStore(tmp_path / "files", reserve_bytes=2**62)
    async with running(store, address, files=files) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            refused = await _do(sender.send, "a", BODY)
            assert isinstance(refused, FileRefused)
            assert not refused.is_final
            assert "free for events" in refused.reason
            assert pipeline.files.problem == refused.reason
            assert pipeline.problem == ""
            assert [record.message for record in caplog.records if "a file cannot be stored" in record.message]
            one.send(one.writer.batch(numbers(0, 10)))
            await one.hear_position(11)
            monkeypatch.setattr(files, "_reserve_bytes", 0)
            assert isinstance(await _do(sender.send, "a", BODY), FileStored)
            assert pipeline.files.problem == ""


class _Gate:
    """Holds the writing of files up for as long as it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        work = FileWriter.work

        def held(writer: FileWriter, jobs: Any) -> Any:
            assert self.open.wait(60)
            return work(writer, jobs)

        monkeypatch.setattr(FileWriter, "work", held)


def _flood(sender: FileSender, transfer: bytes, size: int) -> None:
    for begin in range(0, size, CHUNK_BYTES):
        sender.chunk(transfer, begin, bytes(CHUNK_BYTES))


async def test_a_disk_that_stands_still_holds_up_no_event_and_takes_no_memory(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(store, address) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            transfer = sender.transfer_of("a", 64 * CHUNK_BYTES)
            await _do(sender.open, "a", 64 * CHUNK_BYTES)
            gate = _Gate(monkeypatch)
            await _do(_flood, sender, transfer, 64 * CHUNK_BYTES)
            await _until(lambda: pipeline.files.counters.dropped >= 64 - 17 - 5)
            one.send(one.writer.batch(numbers(0, 100)))
            await one.hear_position(101)
            assert pipeline.files.queued_bytes <= 17 * CHUNK_BYTES
            gate.open.set()
            assert isinstance(await _do(sender.send, "a", bytes(64 * CHUNK_BYTES)), FileStored)
    assert _blob(store, bytes(64 * CHUNK_BYTES)).stat().st_size == 64 * CHUNK_BYTES


async def test_what_nobody_offered_costs_nothing(store: Store, address: Address) -> None:
    async with running(store, address) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            await _do(_flood, sender, b"n" * 16, 64 * CHUNK_BYTES)
            sender.end(b"n" * 16, 1)
            sender.abort(b"n" * 16)
            one.send(one.writer.batch(numbers(0, 10)))
            await one.hear_position(11)
            await _until(lambda: pipeline.files.counters.dropped == 65)
            assert pipeline.files.queued_bytes == 0


async def test_who_waits_for_a_turn_is_called(store: Store, address: Address) -> None:
    async with running(store, address) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            large = WINDOW_BYTES + 1
            for number in range(MAX_LARGE):
                assert isinstance(await _do(sender.open, f"slow-{number}", large), FileAt)
            waiting = sender.offer("waiting", large)
            await _until(lambda: len(pipeline.files.arriving("run-1")) == MAX_LARGE + 1)
            assert await _do(sender.hear_maybe, 0.3) is None
            sender.abort(sender.transfer_of("slow-0", large))
            assert await _do(sender.hear) == FileAt(waiting, 0)


async def test_more_large_files_than_turns_come_in_a_part_at_a_time(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "SLICE_S", 0.0)
    body = random.Random(2).randbytes(WINDOW_BYTES + 10 * CHUNK_BYTES)
    async with running(store, address):
        with peer(address, HandWriter()) as one:
            await _begin_run(one)

            async def send(number: int) -> None:
                with file_sender(address, number + 1, host=f"h{number}") as sender:
                    assert isinstance(await _do(sender.send, "a", body), FileStored)

            async with anyio.create_task_group() as task_group:
                for number in range(MAX_LARGE + 1):
                    task_group.start_soon(send, number)
    assert _rows(store) == [("a", _digest(body), len(body))] * (MAX_LARGE + 1)


async def test_a_run_that_is_removed_takes_its_files_along(store: Store, address: Address) -> None:
    async with running(store, address) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            assert isinstance(await _do(sender.send, "a", BODY), FileStored)
            await pipeline.remove_run(1)
            assert not _blob(store, BODY).exists()
            # It is not remembered either: it may be sent again.
            assert await _do(sender.open, "a", len(BODY)) == FileAt(sender.transfer_of("a", len(BODY)), 0)


async def test_a_store_that_fails_holds_a_file_up_and_loses_none(
    store: Store, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_desk, "_RETRY_S", 0.05)
    calls = 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise OSError(5, "Input/output error")
        return record(*arguments)

    monkeypatch.setattr(file_desk, "record", failing)
    async with running(store, address) as pipeline:
        with peer(address, HandWriter()) as one, file_sender(address) as sender:
            await _begin_run(one)
            transfer = sender.transfer_of("a", 3)
            await _do(sender.open, "a", 3)
            sender.chunk(transfer, 0, b"abc")
            sender.end(transfer, 3)
            await _until(lambda: "Input/output error" in pipeline.files.problem)
            assert await _do(sender.hear_end) == FileStored(transfer, _digest(b"abc"))
    assert len(_rows(store)) == 1


async def test_the_desk_ends_while_files_come_in(store: Store, address: Address) -> None:
    """What has come by then stays."""
    with file_sender(address) as sender:
        async with running(store, address) as pipeline:
            transfer = sender.transfer_of("a", 64 * CHUNK_BYTES)
            await _do(sender.open, "a", 64 * CHUNK_BYTES)
            await _do(_flood, sender, transfer, 16 * CHUNK_BYTES)
            await _until(lambda: pipeline.files.counters.received_bytes > 0)
    (partial_,) = (store.path.parent / "files" / "partial").iterdir()
    assert 0 < partial_.stat().st_size <= 16 * CHUNK_BYTES
