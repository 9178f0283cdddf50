"""What is kept of streams by their `write` alone, and that nothing else about them changes."""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.spools import events_of

from allranks import _warnings
from allranks._behind import BEHIND_VARIABLE, Behind
from allranks._place import RunPlace
from allranks._settings import RunSettings
from allranks._streams import key_of
from allranks._wrap import WrappedConsole, wrapped
from allranks_bus.events import Kind
from allranks_bus.tee.copying import MAX_HELD_BYTES, Gathered
from allranks_bus.tee.keeping import Keeper
from allranks_bus.tee.limits import Limits

_Begin = Callable[..., WrappedConsole]


_Streams = tuple[io.StringIO, io.StringIO]


@pytest.fixture
def shown() -> _Streams:
    """What stands for a terminal here."""
    return io.StringIO(), io.StringIO()


@pytest.fixture
def begin(tmp_path: Path, shown: _Streams, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Begin]:
    """Begins a capture of what is shown, or of other streams; it has ended with the test."""
    monkeypatch.setattr(_warnings, "_said", set())
    with contextlib.ExitStack() as stack:

        def begin(stdout: Any = shown[0], stderr: Any = shown[1], limits: Limits | None = None) -> WrappedConsole:
            # Not before the test: pytest sets both anew at its beginning.
            stack.enter_context(contextlib.redirect_stdout(stdout))
            stack.enter_context(contextlib.redirect_stderr(stderr))
            console = wrapped(_place(tmp_path), _settings(limits))
            assert console is not None
            stack.callback(console.finish, 0.0)
            return console

        yield begin


def _settings(limits: Limits | None = None) -> RunSettings:
    return RunSettings("offline", None, {}, "wrap", console_limits=limits or Limits())


def _place(tmp_path: Path, **env: str) -> RunPlace:
    return RunPlace(
        run="r",
        project="p",
        host="h",
        rank=3,
        world_size=4,
        launch="l",
        writer=b"w" * 16,
        role="rank",
        directory=tmp_path / "run",
        spool_root=tmp_path / "spool",
        destination="offline",
        env=env,
    )


def _events(tmp_path: Path) -> list[list[Any]]:
    return [event for directory in (tmp_path / "spool").glob("*") for event in events_of(directory)]


def _kept(tmp_path: Path, stream: int = 1) -> bytes:
    return b"".join(event[3] for event in _events(tmp_path) if event[0] == Kind.CONSOLE and event[2] == stream)


def test_what_is_printed_is_shown_and_kept(begin: _Begin, shown: _Streams, tmp_path: Path) -> None:
    console = begin()
    assert (sys.stdout, sys.stderr) == shown
    print("a", "line")
    print("ü", file=sys.stderr)
    sys.stdout.writelines(["two\n", "three"])
    assert sys.stdout.write("\r4") == 2
    assert shown[0].getvalue() == "a line\ntwo\nthree\r4"
    console.finish(0.0)
    assert _kept(tmp_path) == b"a line\ntwo\nthree\r4"
    assert _kept(tmp_path, 2) == "ü\n".encode()


def test_it_is_kept_beside_the_rank_as_its_console(begin: _Begin, tmp_path: Path) -> None:
    console = begin()
    print("a line")
    console.finish(0.0)
    opened, _, closed = _events(tmp_path)
    told = opened[2]
    assert [told[key] for key in ("run", "rank", "role", "parent")] == ["r", 3, "console", b"w" * 16]
    assert closed[0] == Kind.CLOSE


def test_a_line_after_a_pause_is_kept_at_once_and_the_rest_with_the_next_tick(begin: _Begin, tmp_path: Path) -> None:
    console = begin()
    print("a last word")
    assert _kept(tmp_path) == b"a last word\n"
    print("no newline", end="")
    assert _kept(tmp_path) == b"a last word\n"
    console.tick()
    assert _kept(tmp_path) == b"a last word\nno newline"


def test_after_finish_the_streams_are_as_before(begin: _Begin, tmp_path: Path) -> None:
    console = begin()
    assert "write" in vars(sys.stdout)
    assert not console.finish(0.0)  # nobody has stored it
    assert "write" not in vars(sys.stdout)
    assert "write" not in vars(sys.stderr)
    print("not kept")
    assert not list(tmp_path.iterdir())


class _Replaced(io.StringIO):
    """A stream whose `write` others replace too."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def replace(self, name: str) -> Callable[[str], int]:
        before = self.write

        def write(text: str) -> int:
            self.told.append(f"{name}: {text}")
            return before(text)

        self.write = write  # type: ignore[method-assign]  # as programs do
        return write


def test_who_replaces_write_too_keeps_theirs(begin: _Begin, tmp_path: Path) -> None:
    stream = _Replaced()
    stream.replace("first")
    console = begin(stream)
    theirs = stream.replace("last")
    sys.stdout.write("a")
    console.finish(0.0)
    sys.stdout.write("b")
    assert stream.told == ["last: a", "first: a", "last: b", "first: b"]
    assert vars(stream)["write"] is theirs
    assert _kept(tmp_path) == b"a"


def test_write_is_given_back_to_who_had_replaced_it_before(begin: _Begin) -> None:
    stream = _Replaced()
    theirs = stream.replace("first")
    begin(stream).finish(0.0)
    assert vars(stream)["write"] is theirs


def test_what_takes_the_place_of_a_stream_is_the_programs_own(begin: _Begin, tmp_path: Path) -> None:
    console = begin()
    with contextlib.redirect_stdout(io.StringIO()) as swallowed:
        print("swallowed")
    assert swallowed.getvalue() == "swallowed\n"

    class Tee:
        """As many programs have one."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream
            self.copy = io.StringIO()

        def write(self, text: str) -> None:
            self.stream.write(text)
            self.copy.write(text)

    with contextlib.redirect_stdout(Tee(sys.stdout)) as tee:  # type: ignore[type-var]  # as programs do
        print("both")
    assert tee.copy.getvalue() == "both\n"
    console.finish(0.0)
    assert _kept(tmp_path) == b"both\n"


class _Shell:
    """As IPython runs a cell: it puts a `write` of its own in the place of the streams' for as long."""

    def __init__(self) -> None:
        self.events = self
        self.actions: list[Callable[[], None]] = []
        self.history: list[str] = []

    def register(self, event: str, action: Callable[[], None]) -> None:
        assert event == "pre_execute"
        self.actions.append(action)

    def unregister(self, event: str, action: Callable[[], None]) -> None:
        self.actions.remove(action)

    def run_cell(self, act: Callable[[], object], is_async: bool = False) -> None:
        stream: Any = sys.stdout
        original = stream.write

        def write(text: str) -> int:
            self.history.append(text)
            return int(original(text))

        if not is_async:
            stream.write = write
        for action in self.actions:
            action()
        act()
        if not is_async:
            stream.write = original


def test_what_each_cell_prints_is_kept_once(
    begin: _Begin, shown: _Streams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = _Shell()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with contextlib.redirect_stdout(shown[0]):
        begun: list[WrappedConsole] = []

        def begin_and_print() -> None:
            begun.append(begin())
            print("1")

        shell.run_cell(begin_and_print)
        for at, is_async in ((2, False), (3, True), (4, False), (5, True)):
            shell.run_cell(lambda at=at: print(at), is_async)  # type: ignore[misc]
        shell.run_cell(lambda: begun[0].finish(0.0))
        shell.run_cell(lambda: print("after"))
    assert _kept(tmp_path) == b"1\n2\n3\n4\n5\n"
    assert shown[0].getvalue() == "1\n2\n3\n4\n5\nafter\n"
    assert "".join(shell.history) == "1\n2\n4\nafter\n"
    assert not shell.actions


class _OutStream(io.StringIO):
    """As ipykernel's: it tells an echo of all that it is told."""

    __module__ = "ipykernel.iostream"
    echo: Any = None

    def write(self, text: str) -> int:
        if self.echo is not None:
            self.echo.write(text)
        return super().write(text)


@pytest.mark.parametrize("has_echo", [True, False])
def test_a_notebooks_stream_is_kept_by_its_echo(begin: _Begin, tmp_path: Path, has_echo: bool) -> None:
    stream = _OutStream()
    before = stream.echo = io.StringIO() if has_echo else None
    of_the_cell = stream.write
    console = begin(stream)
    print("by the cell")
    # As IPython does at the end of each cell; and what a child has printed in it may come only now.
    stream.write = of_the_cell  # type: ignore[method-assign]
    print("later")
    stream.echo.flush()
    console.finish(0.0)
    print("after")
    assert _kept(tmp_path) == b"by the cell\nlater\n"
    assert stream.getvalue() == "by the cell\nlater\nafter\n"
    assert stream.echo is before
    assert before is None or before.getvalue() == stream.getvalue()


def test_one_object_for_both_streams_is_kept_once(begin: _Begin, shown: _Streams, tmp_path: Path) -> None:
    console = begin(shown[0], shown[0])
    print("once", file=sys.stderr)
    console.finish(0.0)
    assert (_kept(tmp_path), _kept(tmp_path, 2)) == (b"once\n", b"")


class _Fixed:
    """A stream that nothing can be changed of."""

    __slots__ = ()

    def write(self, text: str) -> int:
        return len(text)


def test_a_stream_whose_write_cannot_be_replaced_is_left_alone_and_that_is_said(
    begin: _Begin, shown: _Streams
) -> None:
    begin(stdout=_Fixed())
    assert "what is printed to sys.stdout is not kept" in shown[1].getvalue()


def test_where_there_is_no_stream_there_is_nothing_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", _Fixed())
    assert wrapped(_place(tmp_path), _settings()) is None


def test_what_goes_through_the_pipe_of_the_ranks_wrapper_is_kept_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with open(tmp_path / "out", "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        told = str(Behind("door", "r/l/3", {1: key_of(out.fileno())}))
        assert wrapped(_place(tmp_path, **{BEHIND_VARIABLE: told}), _settings()) is None
    monkeypatch.undo()


def test_what_a_stream_raises_is_the_programs(begin: _Begin, tmp_path: Path) -> None:
    console = begin()
    with pytest.raises(TypeError):
        sys.stdout.write(b"bytes")  # type: ignore[arg-type]  # as programs do
    sys.stdout.close()
    with pytest.raises(ValueError, match="closed"):
        print("nobody sees this")
    console.finish(0.0)
    assert not list(tmp_path.iterdir())


def test_whatever_goes_wrong_in_keeping_is_said_once_and_what_is_printed_is_shown(
    begin: _Begin, shown: _Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bool:
        raise ValueError("for a test")

    begin()
    monkeypatch.setattr(Gathered, "put", broken)
    for _ in range(3):
        print("shown")
    assert shown[0].getvalue() == "shown\n" * 3
    assert shown[1].getvalue() == "allranks: what is printed is not kept: ValueError: for a test\n"


def test_a_handler_that_prints_while_something_is_kept_waits_for_nobody(
    begin: _Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in the middle of the thread that it has interrupted."""
    console = begin()
    keep, interrupts = Keeper.keep, ["from the handler"]

    def interrupted(self: Keeper, time_ns: int, stream: int, body: bytes) -> None:
        while interrupts:
            print(interrupts.pop())
        keep(self, time_ns, stream, body)

    monkeypatch.setattr(Keeper, "keep", interrupted)
    print("a line")
    console.finish(0.0)
    assert sorted(_kept(tmp_path).splitlines()) == [b"a line", b"from the handler"]


def test_threads_print_at_once(begin: _Begin, tmp_path: Path) -> None:
    console = begin()
    write = sys.stdout.write  # in one call each: `print` makes two of a line

    def count(name: str) -> None:
        for at in range(2000):
            write(f"{name} {at}\n")

    threads = [threading.Thread(target=count, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        console.tick()
    console.finish(0.0)
    lines = _kept(tmp_path).decode().splitlines()
    for name in "abcd":
        assert [line for line in lines if line.startswith(name)] == [f"{name} {at}" for at in range(2000)]


def test_a_print_as_large_as_anything_is_kept_in_pieces(begin: _Begin, tmp_path: Path) -> None:
    console = begin()
    text = "x" * (2 * MAX_HELD_BYTES)
    print(text)
    print("after it")
    console.finish(0.0)
    assert _kept(tmp_path) == f"{text}\nafter it\n".encode()


def test_who_prints_without_end_is_limited_and_told(begin: _Begin, tmp_path: Path) -> None:
    console = begin(limits=Limits(rate=0, burst=1000, most=10**9))
    for at in range(5000):
        print(f"line {at:04d} {'x' * 90}")
    console.finish(0.0)
    (told,) = [event[2] for event in _events(tmp_path) if event[0] == Kind.DROPPED]
    numbers = [int(line.split()[1]) for line in _kept(tmp_path).splitlines()]
    assert (numbers[0], numbers[-1]) == (0, 4999)
    assert told["lines"] == 5000 - len(numbers)
    assert "ALLRANKS_CONSOLE_RATE_MB" in told["reason"]
