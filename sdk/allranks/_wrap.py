"""The console of a process by its Python alone: what its streams are told is kept, as they are told it.

For notebooks, where what cells print goes to no descriptor, and wherever `console="wrap"` asks for it. `sys.stdout`
stays the object that it was: only its `write` is another one meanwhile, or in a notebook its `echo`. What C code,
child processes and `sys.stdout.buffer` write is not seen here, but for what a notebook's kernel reads itself.

    sys.stdout.write ──► as before
                    ╰──► Gathered ──► Keeper: a spool beside the rank's, as a tee's, and shipped by this process
                          ≤ 0.1 s
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from allranks._behind import Behind, identity_of
from allranks._loading import load
from allranks._place import RunPlace
from allranks._signals import is_from_handler
from allranks._streams import key_of
from allranks._warnings import warn_once
from allranks_bus import events
from allranks_bus.events import Kind
from allranks_bus.limits import WRITER_ID_BYTES
from allranks_bus.sandbox import may_schedule
from allranks_bus.tee.copying import Gathered
from allranks_bus.tee.keeping import Keeper
from allranks_bus.tee.spec import STDERR, STDOUT

if TYPE_CHECKING:
    from allranks._console_feed import Feed
    from allranks._settings import RunSettings

# At the end of a program whose collector is elsewhere: nobody outlives it who would ship what it has printed last.
SHIP_S = 2.0


def wrapped(place: RunPlace, settings: RunSettings) -> WrappedConsole | None:
    """Begins to keep what this process's streams are told; None where there is nothing to keep. Never raises.

    A process that works for a rank keeps its own, under that rank: it shares no pipe with it.
    """
    console = WrappedConsole(place, settings)
    behind = Behind.of(place.env)
    for number, stream in ((STDOUT, sys.stdout), (STDERR, sys.stderr)):
        if stream is not None and not _is_kept_already(stream, number, place, behind):
            console.wrap(number, stream)
    return console if console.is_needed else None


def _is_kept_already(stream: Any, number: int, place: RunPlace, behind: Behind) -> bool:
    """Whether a tee of this rank's reads what the stream writes: of a command that `allranks run` has started."""
    try:
        return behind.keeps(place, number, key_of(stream.fileno()))
    except Exception:  # most that take the place of a stream have no descriptor
        return False


class WrappedStream:
    """A stream whose `write` also tells somebody what was written, until `give_back`.

    Args:
        write: called with what was written, after that.

    Raises:
        Exception: the stream has no `write` that could be replaced; AttributeError or TypeError mostly.
    """

    def __init__(self, stream: Any, write: Callable[[Any], None]) -> None:
        self.stream = stream
        self.tell = write
        self.inside = _Inside()
        self.put_on()

    def put_on(self) -> None:
        """Replaces `write`, where it has not been done, or has been undone by somebody else."""
        top = vars(self.stream).get("write")
        if isinstance(top, _Layer):
            top.told = self
        else:
            self.stream.write = _Layer(self, self.stream.write, top)

    def give_back(self) -> None:
        """The stream's `write` is what it was; where somebody has replaced it since, theirs stays."""
        with contextlib.suppress(Exception):  # it may be anything by now
            top = vars(self.stream).get("write")
            if not isinstance(top, _Layer) or top.told is not self:
                return
            if top.before is None:
                del self.stream.write
            else:
                self.stream.write = top.before


class _Inside(threading.local):
    """What a thread is writing at this moment."""

    text: Any = None


class _Layer:
    """What stands in the place of a stream's `write`.

    There may be more than one of them, with layers of others in between: what passes through them is told once.

    Attributes:
        told: whom it tells.
        before: what the stream itself had in the place of its class's `write`.
    """

    def __init__(self, told: WrappedStream, original: Callable[..., Any], before: Any) -> None:
        self.told = told
        self.before = before
        self._original = original

    def __call__(self, *args: Any, **named: Any) -> Any:
        inside = self.told.inside
        if not args or inside.text is args[0]:
            return self._original(*args, **named)
        outer, inside.text = inside.text, args[0]
        try:
            result = self._original(*args, **named)
        finally:
            inside.text = outer
        self.told.tell(args[0])
        return result


class EchoedStream:
    """A notebook's stream, which tells an `echo` of all that it is told, whoever replaces its `write` meanwhile."""

    def __init__(self, stream: Any, write: Callable[[Any], None]) -> None:
        self.stream = stream
        self.tell = write
        self._before = stream.echo
        stream.echo = self

    @staticmethod
    def is_possible(stream: Any) -> bool:
        """Whether it is a stream of ipykernel's."""
        return any(base.__module__.partition(".")[0] == "ipykernel" for base in type(stream).__mro__)

    def write(self, text: Any) -> None:
        """What the stream calls."""
        if self._before is not None:
            with contextlib.suppress(OSError):  # the kernel's own terminal has gone
                self._before.write(text)
        self.tell(text)

    def flush(self) -> None:
        """What the stream calls."""
        if self._before is not None:
            self._before.flush()

    def put_on(self) -> None:
        """It stays where it is."""

    def give_back(self) -> None:
        """The stream's `echo` is what it was; where somebody has replaced it since, theirs stays."""
        if self.stream.echo is self:
            self.stream.echo = self._before


def _nothing() -> None:
    pass


def _at_each_cell(action: Callable[..., None]) -> Callable[[], None]:
    """Has IPython, where this is one, call `action` before each cell; what ends that."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_shell() if get_shell is not None else None
    if shell is None:
        return _nothing
    shell.events.register("pre_execute", action)

    def end() -> None:
        with contextlib.suppress(ValueError):  # it has been done
            shell.events.unregister("pre_execute", action)

    return end


class WrappedConsole:
    """What a process's streams are told, from `wrap` to `finish`. A run's companion."""

    # Bound here: at the end of the interpreter there are no modules any more.
    _is_finalizing = staticmethod(sys.is_finalizing)

    def __init__(self, place: RunPlace, settings: RunSettings) -> None:
        name = os.urandom(WRITER_ID_BYTES)
        opening = events.pack(Kind.OPEN, time.time_ns(), identity_of(place))
        self._keeper = Keeper(
            place.spool_root, name, opening, cap_bytes=settings.spool_cap_bytes, limits=settings.console_limits
        )
        self._gathered = Gathered()
        self._directory = place.spool_root / name.hex()
        self._destination = place.destination
        self._ships = place.destination != "offline" and may_schedule()
        self._feed: Feed | None = None
        self._streams: list[WrappedStream | EchoedStream] = []
        self._leave_cells: Callable[[], None] = _nothing
        # In a child that was forked by C code, of which no Python is told, nothing of this is touched.
        self._pid = os.getpid()
        # Reentrant: a signal handler may print in the middle of `_write`; then it only adds to what is gathered.
        self._lock = threading.RLock()
        self._is_busy = False
        self._is_last = self._is_over = False

    @property
    def is_needed(self) -> bool:
        """Whether there is any stream whose `write` could be replaced."""
        return bool(self._streams)

    def wrap(self, number: int, stream: Any) -> None:
        """Keeps what `stream` is told as the stream `number` from now on; where that cannot be, it is said."""
        if any(other.stream is stream for other in self._streams):
            return
        try:
            how = EchoedStream if EchoedStream.is_possible(stream) else WrappedStream
            self._streams.append(how(stream, lambda text: self._write(number, text)))
        except Exception as error:  # it may be anything that has a `write`
            if is_from_handler(error):
                raise
            where = "stdout" if number == STDOUT else "stderr"
            warn_once(f"wrap:{where}", f"what is printed to sys.{where} is not kept: {error}")
            return
        if len(self._streams) == 1:
            self._leave_cells = _at_each_cell(self._put_on)

    def tick(self) -> None:
        """Keeps and ships what was printed."""
        self._keep_now()
        if self._ships:
            self._own_feed().step()

    def finish(self, deadline: float) -> bool:
        """Gives the streams back, and waits until what was printed is stored."""
        if self._is_over:
            return True
        self._give_back()
        with self._lock:
            self._keep()
            self._is_over = True
            self._keeper.close()
        if not self._ships:
            return False
        feed = self._own_feed()
        is_stored = feed.finish(deadline)
        if is_stored:
            feed.remove()
        else:
            feed.close()
        return is_stored

    def leave(self) -> None:
        """At the end of the program; where its collector is here, and brings in what is left, the capture goes on."""
        if self._ships and not self._destination.startswith("embedded:"):
            is_in_vain = self._feed is not None and self._feed.waits_in_vain
            self.finish(time.monotonic() + (0.0 if is_in_vain else SHIP_S))
            return
        self._is_last = True
        self._keep_now()

    def abandon(self) -> None:
        """In a forked child: its streams are what they were, and the spool and the sockets are its parent's."""
        self._is_over = True
        self._give_back()
        self._keeper.abandon()
        _KEPT.append(self._feed)

    def _put_on(self, *_: object) -> None:
        """At the beginning of a cell: IPython's own `write` is there now, and ours goes with it at the cell's end."""
        for stream in self._streams:
            with contextlib.suppress(Exception):  # it may be anything by now
                stream.put_on()

    def _give_back(self) -> None:
        self._leave_cells()
        for stream in self._streams:
            stream.give_back()

    def _write(self, number: int, text: Any) -> None:
        """Takes what has been written. What ends a line after a pause is kept at once: it may be a last word."""
        if self._is_finalizing() or not isinstance(text, str) or not text or os.getpid() != self._pid:
            return
        try:
            with self._lock:
                if self._is_over:
                    return
                was_busy, self._is_busy = self._is_busy, True
                try:
                    self._gathered.put(number, text.encode("utf-8", "replace"))
                    is_piece = self._is_last or self._gathered.is_full or text.endswith("\n")
                    if is_piece and not was_busy and (self._is_last or self._gathered.wait_s() == 0.0):
                        self._keep()
                finally:
                    self._is_busy = was_busy
        except Exception as error:
            if is_from_handler(error):
                raise
            warn_once("wrap", f"what is printed is not kept: {type(error).__name__}: {error}")

    def _keep_now(self) -> None:
        with self._lock:
            was_busy, self._is_busy = self._is_busy, True
            try:
                if not (was_busy or self._is_over):
                    self._keep()
                    self._keeper.look()
            finally:
                self._is_busy = was_busy

    def _keep(self) -> None:
        self._keeper.keep_all(self._gathered)
        if self._is_last:
            self._keeper.settle()

    def _own_feed(self) -> Feed:
        feed = self._feed
        if feed is None:
            feeds = load("allranks._console_feed")
            feed = self._feed = feeds.Feed(self._directory, feeds.finder(self._destination))
        return feed


# What forked children have of their parents' sockets: kept, so that nobody closes it.
_KEPT: list[object] = []
