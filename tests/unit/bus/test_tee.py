"""The parts of a tee: what it is told, what it packs, what it holds, and what it hands over."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import termios
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.spools import events_of
from tests.support.waiting import wait_until

from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.tee import copying, handover, keeping, payloads
from allranks_bus.tee.copying import CHUNK_BYTES, Gathered
from allranks_bus.tee.error_file import MAX_BYTES, read_error_file
from allranks_bus.tee.keeping import LAST_WORDS_BYTES, Keeper
from allranks_bus.tee.limits import Allowance, Limits, Loss
from allranks_bus.tee.modes import Modes, input_modes
from allranks_bus.tee.spec import STDERR, STDOUT, Spec

T0_NS = 1_700_000_000_000_000_000
_TIMES = st.integers(2**32, 2**63 - 1)
_OPENING = events.pack(Kind.OPEN, T0_NS, {"run": "r", "role": "console"})


def _spec(root: Path, **other: object) -> Spec:
    told: dict[str, object] = {
        "root": str(root),
        "name": b"t" * 16,
        "cap_bytes": 1 << 30,
        "limits": Limits(1, 2, 3),
        "door": "door",
        "streams": (STDOUT, STDERR),
        "modes": {STDOUT: "1.2.3"},
        "behind": {STDERR: "another"},
        "destination": "tcp://host:5571",
        "run": "r",
        "launch": "l",
        "path": ("/a", "/b c"),
        "opening": _OPENING,
        **other,
    }
    return Spec(**told)  # type: ignore[arg-type]  # as told


def _keeper(root: Path, cap_bytes: int = 1 << 30, limits: Limits | None = None) -> Keeper:
    return Keeper(root, b"t" * 16, _OPENING, cap_bytes=cap_bytes, limits=limits or Limits())


# -- what it is told ----------------------------------------------------------------------------------------------


def test_a_spec_comes_through_a_pipe_as_it_was() -> None:
    spec = _spec(Path("/spool/ü\udcff"), opening=b"with \0 and \n in it")
    read, write = os.pipe()
    os.write(write, spec.pack())
    os.close(write)
    told = Spec.read(read)
    assert vars(told) == {**vars(spec), "limits": told.limits}
    assert vars(told.limits) == {"rate": 1, "burst": 2, "most": 3}
    os.close(read)


def test_a_spec_that_no_pipe_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        _spec(Path("/"), opening=bytes(40_000)).pack()


# -- what it packs ------------------------------------------------------------------------------------------------


@given(time_ns=_TIMES, stream=st.sampled_from((1, 2)), chunk=st.binary(max_size=2000))
def test_console_records_are_what_any_reader_understands(time_ns: int, stream: int, chunk: bytes) -> None:
    assert events.unpack(payloads.console(time_ns, stream, chunk)) == [Kind.CONSOLE, time_ns, stream, chunk]


@given(time_ns=_TIMES, lost=st.lists(st.binary(max_size=40)), reason=st.text(max_size=400))
def test_losses_are_told_as_any_reader_understands(time_ns: int, lost: list[bytes], reason: str) -> None:
    loss = Loss()
    for body in lost:
        loss.add(body)
    told = {"records": len(lost), "bytes": sum(map(len, lost)), "lines": b"".join(lost).count(b"\n")}
    event = events.unpack(payloads.dropped(time_ns, loss, reason))
    assert event == [Kind.DROPPED, time_ns, {**told, "reason": reason}]


@given(time_ns=_TIMES, content=st.binary(max_size=2000))
def test_error_files_are_what_any_reader_understands(time_ns: int, content: bytes) -> None:
    assert events.unpack(payloads.error_file(time_ns, content)) == [Kind.ERROR_FILE, time_ns, content]


def test_of_error_files_only_regular_ones_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    def read(path: Path) -> bytes:
        return read_error_file({"TORCHELASTIC_ERROR_FILE": str(path)})

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(bytes(MAX_BYTES + 1))
    (tmp_path / "good").write_bytes(bytes(MAX_BYTES))
    found = [read(tmp_path / name) for name in ("fifo", "large", "", "none", "\0", "good")]
    assert found == [b"", b"", b"", b"", b"", bytes(MAX_BYTES)]
    assert read_error_file({}) == b""


def test_an_error_file_is_kept_also_of_a_rank_that_printed_nothing(tmp_path: Path) -> None:
    keeper = _keeper(tmp_path)
    keeper.keep_error_file(b"")
    assert keeper.is_empty
    keeper.keep_error_file(b"{}")
    keeper.close()
    kinds = [event[0] for event in events_of(tmp_path / keeper.name.hex())]
    assert kinds == [Kind.OPEN, Kind.ERROR_FILE, Kind.CLOSE]


@given(time_ns=_TIMES)
def test_openings_and_closings_bear_their_time(time_ns: int) -> None:
    assert events.unpack(payloads.stamped(_OPENING, time_ns)) == [Kind.OPEN, time_ns, {"run": "r", "role": "console"}]
    assert events.unpack(payloads.close(time_ns)) == [Kind.CLOSE, time_ns, {}]


# -- what it holds ------------------------------------------------------------------------------------------------


@given(parts=st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(min_size=1, max_size=70_000)), max_size=8))
def test_nothing_is_lost_or_mixed_between_streams(parts: list[tuple[int, bytes]]) -> None:
    gathered = Gathered()
    for stream, part in parts:
        gathered.put(stream, part)
    chunks, loss = gathered.take()
    assert not loss
    assert all(0 < chunk.size == len(chunk.body()) <= CHUNK_BYTES for chunk in chunks)
    for stream in (1, 2):
        told = b"".join(chunk.body() for chunk in chunks if chunk.stream == stream)
        assert told == b"".join(part for of, part in parts if of == stream)
    assert gathered.take()[0] == []


def test_the_first_part_is_due_at_once_as_large_ones_are_and_small_ones_are_gathered() -> None:
    gathered = Gathered()
    assert gathered.wait_s() is None
    assert gathered.put(1, b"the first")
    assert gathered.wait_s() == 0.0
    gathered.take()
    assert gathered.put(1, b"small")
    waits_s = gathered.wait_s()
    assert waits_s is not None
    assert waits_s <= copying.GATHER_S
    assert not gathered.put(2, b"also small")
    assert gathered.put(1, b"x" * CHUNK_BYTES)
    assert gathered.wait_s() == 0.0


def test_what_a_slow_disk_leaves_no_room_for_is_counted() -> None:
    gathered = Gathered()
    part = b"x" * (CHUNK_BYTES - 1) + b"\n"
    for _ in range(copying.MAX_HELD_BYTES // CHUNK_BYTES + 3):
        gathered.put(1, part)
    chunks, loss = gathered.take()
    assert sum(chunk.size for chunk in chunks) == copying.MAX_HELD_BYTES
    assert vars(loss) == {"records": 3, "size": 3 * CHUNK_BYTES, "lines": 3}


# -- what it keeps ------------------------------------------------------------------------------------------------


def test_what_is_kept_lies_in_a_spool_that_anybody_can_drain(tmp_path: Path) -> None:
    keeper = _keeper(tmp_path)
    assert not list(tmp_path.iterdir())  # nothing has been printed
    keeper.keep(T0_NS, STDOUT, b"hello\n")
    keeper.close()
    opened, line, closed = events_of(tmp_path / (b"t" * 16).hex())
    assert (opened[0], opened[2]["role"]) == (Kind.OPEN, "console")
    assert line == [Kind.CONSOLE, T0_NS, STDOUT, b"hello\n"]
    assert (closed[0], closed[2]) == (Kind.CLOSE, {})


def test_nothing_is_left_of_a_tee_that_had_nothing_to_keep(tmp_path: Path) -> None:
    _keeper(tmp_path).close()
    assert not list(tmp_path.iterdir())


def test_what_is_kept_after_a_spool_was_let_go_lies_in_another(tmp_path: Path) -> None:
    keeper = _keeper(tmp_path)
    keeper.keep(T0_NS, STDOUT, b"before\n")
    first = keeper.name
    keeper.begin_another()
    assert (keeper.is_empty, len(list(tmp_path.iterdir()))) == (True, 1)
    keeper.keep(T0_NS, STDOUT, b"after\n")
    keeper.close()
    found = [[event[0] for event in events_of(tmp_path / name.hex())] for name in (first, keeper.name)]
    assert found == [[Kind.OPEN, Kind.CONSOLE, Kind.CLOSE]] * 2


def test_what_found_no_room_is_told_in_its_place(tmp_path: Path) -> None:
    keeper = _keeper(tmp_path, cap_bytes=200_000)
    for _ in range(10):
        keeper.keep(T0_NS, STDOUT, b"x" * CHUNK_BYTES)
    # Others have shipped what there was, but for the newest segment.
    directory = tmp_path / (b"t" * 16).hex()
    for path in sorted(directory.glob("*.seg"))[:-1]:
        path.unlink()
    keeper.keep_all(Gathered())
    keeper.keep(T0_NS, STDOUT, b"after\n")
    keeper.close()
    told = events_of(directory)
    (dropped,) = [event for event in told if event[0] == Kind.DROPPED]
    assert dropped[2]["records"] >= 1
    assert dropped[2]["bytes"] == dropped[2]["records"] * CHUNK_BYTES
    assert "cap" in dropped[2]["reason"]
    assert [event[3] for event in told if event[0] == Kind.CONSOLE][-1] == b"after\n"


def test_a_spool_that_cannot_be_made_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_RETRY_S", 0.0)
    blocked = tmp_path / "spool"
    blocked.write_text("a file is in the way")
    keeper = _keeper(blocked)
    keeper.keep(T0_NS, STDOUT, b"lost\n")
    blocked.unlink()
    keeper.keep(T0_NS, STDOUT, b"kept\n")
    keeper.close()
    _, dropped, kept, _ = events_of(blocked / (b"t" * 16).hex())
    assert (dropped[0], dropped[2]["records"], kept[3]) == (Kind.DROPPED, 1, b"kept\n")


# -- and how much of it ------------------------------------------------------------------------------------------


def test_what_usual_programs_print_is_within_the_limits() -> None:
    """100,000 lines of 100 bytes at full speed."""
    allowance = Allowance(Limits())
    assert all(allowance.take(CHUNK_BYTES, 0.0) for _ in range(100_000 * 101 // CHUNK_BYTES + 1))


def test_who_prints_without_end_is_kept_at_the_rate_for_long() -> None:
    limits = Limits(rate=1000, burst=10_000, most=10**9)
    allowance = Allowance(limits)
    kept = [at for at in range(60_000) if allowance.take(100, at / 1000)]  # 100 kB/s for a minute
    assert 100 * len(kept) == pytest.approx(limits.burst + 60 * limits.rate, rel=0.02)
    # In pieces of about a second's worth, and not byte by byte.
    pieces = 1 + sum(later - before > 1 for before, later in pairwise(kept))
    assert 40 <= pieces <= 62


def test_a_pause_gives_the_burst_back_and_no_more() -> None:
    allowance = Allowance(Limits(rate=1000, burst=10_000, most=10**9))
    for begin in (0.0, 1000.0):
        assert sum(allowance.take(1000, begin) for _ in range(100)) == 10
        wait_s = allowance.wait_s(begin)
        assert wait_s == pytest.approx(1.0)
        assert not allowance.is_open(begin + 0.9)
        assert allowance.is_open(begin + 1.1)


def test_what_is_kept_of_a_rank_in_all_has_an_end() -> None:
    allowance = Allowance(Limits(rate=1000, burst=1000, most=2500))
    assert [allowance.take(1000, float(at)) for at in range(0, 100, 10)] == [True] * 3 + [False] * 7
    assert allowance.wait_s(1e9) is None
    assert "ALLRANKS_CONSOLE_MAX_MB" in allowance.reason


@given(
    limits=st.builds(Limits, *[st.integers(0, 5000)] * 3),
    prints=st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 5)), max_size=60),
)
def test_no_setting_lets_more_through_than_it_says(limits: Limits, prints: list[tuple[int, float]]) -> None:
    allowance = Allowance(limits)
    now, kept = 0.0, 0
    for size, pause_s in prints:
        now += pause_s
        if allowance.take(size, now):
            kept += size
        # Not more than one print beyond it.
        assert kept <= min(limits.most, limits.burst + limits.rate * now) + 2000 + 1e-6


def _kept_of(directory: Path) -> list[bytes | dict[str, object]]:
    """What was kept and what was told of losses, in its order."""
    wanted = (Kind.CONSOLE, Kind.DROPPED)
    return [event[-1] for event in events_of(directory) if event[0] in wanted]


def test_what_is_beyond_the_limits_is_counted_in_its_place_and_the_last_words_are_kept(tmp_path: Path) -> None:
    keeper = _keeper(tmp_path, limits=Limits(rate=0, burst=1000, most=1 << 30))
    chunks = [
        b"".join(b"line %08d %s\n" % (at, b"x" * 85) for at in range(begin, begin + 100))
        for begin in range(0, 10_000, 100)
    ]
    for chunk in chunks:
        keeper.keep(T0_NS, STDOUT, chunk)
    keeper.keep(T0_NS, STDERR, b"no newline: Killed")
    keeper.close()
    first, end_of_line, told, *last, word = _kept_of(tmp_path / (b"t" * 16).hex())
    assert isinstance(told, dict)
    assert (first, word) == (chunks[0], b"no newline: Killed")
    kept = b"".join(part for part in (first, end_of_line, *last) if isinstance(part, bytes))
    numbers = [int(line.split()[1]) for line in kept.splitlines()]
    assert all(line.endswith(b"x" * 85) for line in kept.splitlines())
    # The first are there, then one gap as large as it is told, then the last.
    assert numbers[:101] == list(range(101))
    assert numbers[101:] == list(range(10_000 - len(numbers) + 101, 10_000))
    assert told["lines"] == 10_000 - len(numbers)
    assert told["bytes"] == sum(map(len, chunks)) - len(kept)
    assert "ALLRANKS_CONSOLE_RATE_MB" in str(told["reason"])
    assert LAST_WORDS_BYTES // 2 < len(b"".join(part for part in last if isinstance(part, bytes))) <= LAST_WORDS_BYTES


def test_a_rank_that_goes_quiet_is_kept_on_without_printing_again(tmp_path: Path) -> None:
    keeper = _keeper(tmp_path, limits=Limits(rate=1000, burst=100, most=1 << 30))
    keeper.keep(T0_NS, STDOUT, b"x" * 109 + b"\n")
    keeper.keep(T0_NS, STDOUT, b"put off\n")
    waits_s = keeper.wait_s()
    assert waits_s is not None
    assert 0 < waits_s <= 1.0
    directory = tmp_path / (b"t" * 16).hex()

    def looks() -> bool:
        keeper.look()
        return keeper.wait_s() is None

    wait_until(looks, "it is kept")
    assert _kept_of(directory)[1:] == [b"put off\n"]
    keeper.close()


def test_a_loss_that_goes_on_is_told_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "TELL_FIRST_S", 0.0)
    keeper = _keeper(tmp_path, limits=Limits(rate=0, burst=0, most=1))
    for _ in range(5):
        keeper.keep(T0_NS, STDOUT, b"x" * CHUNK_BYTES)
    assert keeper.wait_s() == 0.0
    keeper.look()
    assert [part for part in _kept_of(tmp_path / (b"t" * 16).hex()) if isinstance(part, dict)]
    assert keeper.wait_s() is None
    keeper.keep(T0_NS, STDOUT, b"x" * CHUNK_BYTES)
    waits_s = keeper.wait_s()
    assert waits_s is not None
    assert waits_s > keeping.TELL_EVERY_S / 2
    keeper.close()


# -- what it hands over -------------------------------------------------------------------------------------------


def _serve(listener: socket.socket, originals: dict[int, int]) -> threading.Thread:
    def serve() -> None:
        listener.setblocking(True)
        listener.settimeout(60)
        handover.give(listener, originals)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_descriptors_go_from_one_tee_to_another(tmp_path: Path) -> None:
    door = os.urandom(8).hex()
    listener = handover.listen(door)
    assert listener is not None
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        serving = _serve(listener, {STDOUT: out.fileno(), STDERR: err.fileno()})
        found = handover.ask(door, 60.0)
        serving.join()
        listener.close()
        assert list(found) == [STDOUT, STDERR]
        for stream, fd in found.items():
            os.write(fd, b"stream %d" % stream)
            os.close(fd)
    assert (tmp_path / "out").read_bytes() == b"stream 1"
    assert (tmp_path / "err").read_bytes() == b"stream 2"


def test_where_nobody_answers_that_is_known_in_time() -> None:
    begun = time.monotonic()
    assert handover.ask(os.urandom(8).hex(), 0.05) == {}
    assert time.monotonic() - begun < 20.0


def test_two_cannot_listen_at_one_door() -> None:
    door = os.urandom(8).hex()
    listener = handover.listen(door)
    assert listener is not None
    assert handover.listen(door) is None
    listener.close()


# -- what it takes ------------------------------------------------------------------------------------------------


def test_a_tee_loads_neither_zeromq_nor_msgpack() -> None:
    """Nor what is slow to load: there is one for each rank."""
    program = "import sys; sys.path[:0] = [sys.argv[1]]; import allranks_bus.tee.program; print(*sys.modules)"
    bus = str(Path(events.__file__).parents[1])
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, bus], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {"zmq", "msgpack", "dataclasses", "inspect", "json", "asyncio", "subprocess", "logging"}
    heavy |= {"pathlib", "re", "typing", "signal", "urllib.parse"}
    assert heavy & set(told.stdout.split()) == set()


# -- the modes of a terminal --------------------------------------------------------------------------------------


def _set_input(fd: int, flag: int, *, on: bool) -> None:
    modes = termios.tcgetattr(fd)
    modes[3] = modes[3] | flag if on else modes[3] & ~flag
    termios.tcsetattr(fd, termios.TCSANOW, modes)


def test_what_a_program_makes_of_its_pty_is_made_of_the_terminal_behind_and_given_back() -> None:
    (source, slave), (keyboard, screen) = pty.openpty(), pty.openpty()
    try:
        before = termios.tcgetattr(screen)
        modes = Modes(source, screen, input_modes(slave))
        _set_input(slave, termios.ICANON, on=False)
        modes.follow()
        was_changed = modes.are_changed
        assert not termios.tcgetattr(screen)[3] & termios.ICANON
        assert termios.tcgetattr(screen)[1] == before[1]
        _set_input(slave, termios.ICANON, on=True)
        modes.follow()
        assert (was_changed, modes.are_changed) == (True, False)
        assert termios.tcgetattr(screen) == before
    finally:
        for fd in (source, slave, keyboard, screen):
            os.close(fd)


def test_who_has_the_terminal_meanwhile_keeps_its_modes() -> None:
    """A shell, once the program has been stopped: it edits its line by modes of its own."""
    (source, slave), (keyboard, screen) = pty.openpty(), pty.openpty()
    try:
        modes = Modes(source, screen, input_modes(slave))
        _set_input(slave, termios.ICANON, on=False)
        modes.follow()
        _set_input(slave, termios.ICANON, on=True)
        _set_input(screen, termios.ECHO, on=False)
        modes.follow()
        assert not termios.tcgetattr(screen)[3] & (termios.ICANON | termios.ECHO)
    finally:
        for fd in (source, slave, keyboard, screen):
            os.close(fd)
