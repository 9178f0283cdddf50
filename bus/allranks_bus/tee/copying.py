"""Copying: from the pipe that a rank prints into to where its output went before, and into what waits to be kept."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Sequence

from allranks_bus.tee.limits import Loss
from allranks_bus.tee.spec import ORIGINALS, SOURCES

TYPE_CHECKING = False  # as typing has it, which is slow to load
if TYPE_CHECKING:
    from allranks_bus.tee.modes import Modes

# While a program has its terminal in other modes, the end of that is looked for so often: it need not be printed.
LOOK_S = 0.02
# One read: what a killed tee can lose of what somebody would have seen.
READ_BYTES = 64 * 1024
# Between two reads: else each write of the program would be a change of process, where there is no core to spare.
PAUSE_S = 0.001
# Where both streams go to the same file, one waits so long for the other to end its line. Python may write the end of
# a line by itself (PYTHONUNBUFFERED); a progress bar never ends its line.
LINE_S = 0.02
# One record, and the time between two of them while there is not so much. Who prints after a pause is kept at once:
# it may be a last word, in a container that ends with it.
CHUNK_BYTES = 32 * 1024
GATHER_S = 0.02
# What a pipe or a socket answers that nobody reads any more; of a terminal everything says so. A file may take more
# later: a disk has room again, a network file system is back.
_GONE = (errno.EPIPE, errno.ECONNRESET)
# Of what is printed to nobody so much is kept: what was on its way when the reader went.
_REST_BYTES = 1024 * 1024
# A disk that takes nothing must not fill the memory.
MAX_HELD_BYTES = 4 * 1024 * 1024


class Chunk:
    """Bytes of one stream, and when the first of them came."""

    def __init__(self, stream: int, time_ns: int) -> None:
        self.stream = stream
        self.time_ns = time_ns
        self.size = 0
        self._parts: list[bytes] = []

    def add(self, part: bytes) -> None:
        self._parts.append(part)
        self.size += len(part)

    def body(self) -> bytes:
        return b"".join(self._parts)


class Gathered:
    """What has been copied and is not kept yet. `put` from any thread, `take` from one."""

    def __init__(self) -> None:
        self._loss = Loss()
        # Reentrant, for a signal handler that prints in the middle of `put`, where there is no process in between.
        self._lock = threading.RLock()
        self._chunks: list[Chunk] = []
        self._open: dict[int, Chunk] = {}
        self._held = 0
        self._due_at = 0.0

    def put(self, stream: int, part: bytes) -> bool:
        """Adds what one read gave; True where somebody should look when it is due."""
        with self._lock:
            if self._held >= MAX_HELD_BYTES:
                self._loss.add(part)
                return False
            was, size = self._held, len(part)
            for begin in range(0, size, CHUNK_BYTES):
                piece = part[begin : begin + CHUNK_BYTES]
                chunk = self._open.get(stream)
                if chunk is None or chunk.size + len(piece) > CHUNK_BYTES:
                    chunk = self._open[stream] = Chunk(stream, time.time_ns())
                    self._chunks.append(chunk)
                chunk.add(piece)
            self._held += size
            return not was or was < CHUNK_BYTES <= self._held

    @property
    def is_full(self) -> bool:
        """Whether there is as much as one record takes."""
        return self._held >= CHUNK_BYTES

    def wait_s(self) -> float | None:
        """How long to wait for more before taking it; None where there is nothing."""
        with self._lock:
            if not self._held:
                return None
            return 0.0 if self.is_full else max(0.0, self._due_at - time.monotonic())

    def take(self) -> tuple[list[Chunk], Loss]:
        """All of it, by the time at which each chunk began; and what had no room after that."""
        with self._lock:
            taken, self._chunks = self._chunks, []
            loss, self._loss = self._loss, Loss()
            self._open.clear()
            self._held = 0
            self._due_at = time.monotonic() + GATHER_S
        return taken, loss


class Copier(threading.Thread):
    """Copies one stream until nobody can print into it any more.

    A thread of its own, so that a terminal that is held up holds up nothing else. What is behind the stream comes
    first: it gets each read as a whole before anything is kept.

    Where its reader has gone, it ends, and with it the pipe: whoever prints into that sees it, by SIGPIPE as a rule,
    as without us. A child that prints without end would never end else.

    Args:
        on_full: called once, where what is behind the stream takes no more.
        on_gone: called where nobody reads any more; before the end.
        modes: of the terminal behind it, where there is one.
        wake: called where `gathered` wants to be looked at, and at the end.

    Attributes:
        turn: held while a line is shown, by one of the streams that go to the same file; None where it goes there
            alone. To be set before the start.
    """

    def __init__(
        self,
        stream: int,
        gathered: Gathered,
        *,
        on_full: Callable[[int], None],
        on_gone: Callable[[int], None],
        wake: Callable[[], None],
        modes: Modes | None = None,
    ) -> None:
        super().__init__(name=f"copier-{stream}", daemon=True)
        self.has_ended = False
        self.turn: threading.Lock | None = None
        self._stream = stream
        self._gathered = gathered
        self._on_full = on_full
        self._on_gone = on_gone
        self._wake = wake
        self._source, self._original = SOURCES[stream], ORIGINALS[stream]
        self._modes = modes
        self._is_busy = False
        self._is_full = self._is_gone = False

    def run(self) -> None:
        while self._copy_once() and not self._is_gone:
            pass
        if self._is_gone:
            self._end_of_pipe()
        self.has_ended = True
        self._wake()

    def has_copied_all(self) -> bool:
        """True where everything that has been printed is copied: in this order, for it is busy before it reads."""
        if self.has_ended:
            return True
        if _has_something(self._source) or self._is_busy:
            return False
        self._follow_modes()
        return True

    def _copy_once(self) -> bool:
        while not _has_something(self._source, self._patience_s()):
            self._follow_modes()
        self._is_busy = True
        self._follow_modes()
        if self.turn is None:
            part = self._move()
        else:
            with self.turn:
                part = self._move_line()
        self._is_busy = False
        time.sleep(PAUSE_S if part else 0.0)
        return bool(part)

    def _patience_s(self) -> float | None:
        return LOOK_S if self._modes is not None and self._modes.are_changed else None

    def _follow_modes(self) -> None:
        if self._modes is not None:
            self._modes.follow()

    def _move_line(self) -> bytes:
        """Moves what there is, and the rest of its last line where that comes at once; what was read last."""
        part = self._move()
        deadline = time.monotonic() + LINE_S
        while part and not part.endswith(b"\n") and (wait_s := deadline - time.monotonic()) > 0:
            if not _has_something(self._source, wait_s):
                break
            time.sleep(PAUSE_S)
            part = self._move()
        return part

    def _move(self) -> bytes:
        """Shows and gathers what one read gives: this. Nothing at the end."""
        try:
            part = os.read(self._source, READ_BYTES)
        except OSError:  # EIO: nobody has the other side of the pty
            return b""
        if part:
            self._show(part)
            if self._gathered.put(self._stream, part):
                self._wake()
        return part

    def _end_of_pipe(self) -> None:
        """Lets go of the pipe, once what stands in it is gathered."""
        self._on_gone(self._stream)
        rest = _REST_BYTES
        while rest > 0 and _has_something(self._source) and (part := self._move()):
            rest -= len(part)
        # The number stays taken.
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(nothing, self._source, inheritable=False)
        os.close(nothing)

    def _show(self, part: bytes) -> None:
        view = memoryview(part)
        while view and not self._is_gone:
            try:
                view = view[os.write(self._original, view) :]
            except BlockingIOError:  # somebody has made it so, for all who share it
                select.select((), (self._original,), ())
            except OSError as error:
                if error.errno in _GONE or os.isatty(self._source):
                    self._is_gone = True
                elif not self._is_full:
                    self._is_full = True
                    self._on_full(self._stream)
                return


def turn_of(streams: Sequence[int]) -> threading.Lock | None:
    """What the copiers of these streams take turns by: None where no two of them go to the same file."""
    behind = [os.fstat(ORIGINALS[stream]) for stream in streams]
    files = {(about.st_dev, about.st_ino) for about in behind}
    return threading.Lock() if len(files) < len(behind) else None


def _has_something(fd: int, timeout_s: float | None = 0.0) -> bool:
    """Whether there is anything to read, an end included; waits for it so long, None for ever."""
    return bool(select.select((fd,), (), (), timeout_s)[0])
