"""The spool: a writer's ordered log on local disk, from which nothing is lost when its process dies.

    ROOT/<writer, 32 hex digits>/
        00000000000000000000.seg     named by the seq of its first record
        00000000000000018230.seg     about 16 MiB each; the first record of each is an OPEN
        lock                         a record lock, held for as long as the writer lives

A record is in the page cache when `append` returns: it survives every death of the process, though not that of the
machine. docs/protocol.md §9.
"""

from __future__ import annotations

# A tee uses this, and there is one for each rank: it starts in half the time without pathlib, re and typing.
# ruff: noqa: PTH102, PTH103, PTH104, PTH108, PTH118
import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable

from allranks_bus import records
from allranks_bus.errors import SpoolError
from allranks_bus.records import MAX_PAYLOAD_BYTES
from allranks_bus.segments import MARK_BYTES, Segment, SegmentFiles, find_span, segment_path
from allranks_bus.spool_directory import StrPath, remove_directory, remove_segments, take_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

SEGMENT_BYTES = 16 * 1024 * 1024
CAP_BYTES = 16 * 1024 * 1024 * 1024
_RETRY_S = 0.25


class SpoolWriter:
    """A process's own log. `append` from any thread; `read`, `release` from one publisher thread.

    Args:
        root: where the writer's directory is made.
        name: the writer's 16 bytes.
        opening: makes the payload of the OPEN record that begins each segment; called under the lock.
        segment_bytes, cap_bytes: the size of a segment, and of all of them together; what would go beyond the cap
            is refused and counted.

    Attributes:
        refused: records that could not be kept so far.
        problem: why the newest one was refused; empty while all is well.

    Raises:
        SpoolError: the directory cannot be made or written.
    """

    def __init__(
        self,
        root: StrPath,
        name: bytes,
        opening: Callable[[], bytes],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        cap_bytes: int = CAP_BYTES,
    ) -> None:
        self._path = os.path.join(root, name.hex())
        self.refused = 0
        self.problem = ""
        # Reentrant, because a signal handler may log while its thread is in the middle of an append. A handler runs
        # (and may raise) after any call, and never between plain assignments: the order of both is chosen for that.
        self._lock = threading.RLock()
        # The newest segment's descriptor, records and bytes; -1 while the spool cannot take records. Beyond
        # `_check_at` bytes a mark is due. They are attributes of their own for the hot path's sake.
        self._fd = -1
        # A descriptor that is not written to any more and waits to be closed.
        self._torn_fd = -1
        self._count = 0
        self._size = 0
        self._check_at = 0
        # Replaced and never changed in place, so that a reader's snapshot stays whole.
        self._segments: tuple[Segment, ...] = ()
        self._files = SegmentFiles()
        self._opening = opening
        # A segment is only removed once a newer one exists, so several must fit below the cap.
        self._segment_bytes = min(segment_bytes, cap_bytes // 4)
        self._cap_bytes = cap_bytes
        self._mark_bytes = min(MARK_BYTES, self._segment_bytes)
        self._older_bytes = 0
        self._retry_at = 0.0
        self._closed = False
        self._lock_fd = -1
        # Under a name that nobody drains, until the lock is held.
        made = os.path.join(root, f".{name.hex()}")
        try:
            os.makedirs(root, mode=0o700, exist_ok=True)
            os.mkdir(made, mode=0o700)
            self._lock_fd = take_lock(made)
            os.rename(made, self._path)
            made = self._path
            self._begin_segment()
        except BaseException as error:
            self.abandon()
            remove_directory(made)
            if isinstance(error, OSError):
                raise SpoolError(f"cannot keep a spool in {root}: {error.strerror or error}") from error
            raise

    @property
    def directory(self) -> Path:
        """Where it lies."""
        from pathlib import Path

        return Path(self._path)

    @property
    def base(self) -> int:
        return self._segments[0].first_seq

    @property
    def end(self) -> int:
        with self._lock:
            return self._segments[-1].first_seq + self._count

    @property
    def held_bytes(self) -> int:
        """The bytes on disk that are not yet released."""
        with self._lock:
            return self._older_bytes + self._size

    @property
    def is_suspended(self) -> bool:
        """True while it can take no records; it tries again by itself."""
        return self._fd < 0

    def append(self, payload: bytes) -> bool:
        """Adds a record; False where it was refused, and counted. Raises nothing but what a signal handler raises."""
        if not 0 < len(payload) <= MAX_PAYLOAD_BYTES:
            # A reader would stop at it, and lose what follows.
            with self._lock:
                self.problem = f"a record has 1 to {MAX_PAYLOAD_BYTES:,} bytes, not {len(payload):,}"
                self.refused += 1
            return False
        return self._append(records.frame(payload))

    def read(self, seq: int) -> tuple[int, bytes]:
        with self._lock:
            newest = self._segments[-1]
            newest.count, newest.size = self._count, self._size
            span = find_span(self._segments, seq)
        return self._files.read(span)

    def release(self, seq: int) -> None:
        with self._lock:
            done = [segment for segment in self._segments[:-1] if segment.end_seq <= seq]
            self._segments = self._segments[len(done) :]
            self._older_bytes -= sum(segment.size for segment in done)
            if done:
                self._retry_at = 0.0  # there is room again, perhaps
        for segment in done:
            segment.remove()

    def try_again(self) -> None:
        """Takes records again, where it could not and now can; by itself it tries four times a second."""
        with self._lock:
            if self._fd < 0:
                self._resume()

    def seal(self, payload: bytes) -> bool:
        """Adds the last record: all others are refused from then on. What is there can be read and released still.

        Does nothing where that has been done.
        """
        with self._lock:
            if self._closed:
                return False
            is_kept = self.append(payload)
            self._closed = True
            fd, self._fd = self._fd, -1
            _close(fd)
            return is_kept

    def close(self) -> None:
        """Ends the writer; what is not released stays on disk for whoever drains it."""
        with self._lock:
            self.abandon()

    def remove(self) -> None:
        """Ends the writer and removes its directory: everything is stored elsewhere."""
        with self._lock:
            # The lock is given up last, so that nobody begins to drain what is on its way out.
            remove_segments(self._path)
            self.abandon()
            remove_directory(self._path)

    def abandon(self) -> None:
        """Closes the descriptors and takes no more records; takes no lock, for a forked child that inherited one."""
        self._closed = True
        descriptors = (self._fd, self._torn_fd, self._lock_fd)
        self._fd = self._torn_fd = self._lock_fd = -1
        for fd in descriptors:
            _close(fd)
        self._files.close()

    def _append(self, record: bytes) -> bool:
        """Adds a framed record. The hot path of `log()` repeats these lines in place."""
        size = len(record)
        with self._lock:
            try:
                if os.write(self._fd, record) != size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except BaseException as error:
                # Whatever else happens: the file is looked at before it is written to again.
                if self._fd >= 0:
                    self._fd, self._torn_fd = -1, self._fd
                return self._recover(record, error)
            self._count += 1
            self._size += size
            if self._size >= self._check_at:
                self._checkpoint()
            return True

    def _checkpoint(self) -> None:
        """Sets a mark, and begins a new segment when this one is full; under the lock, every 128 KiB."""
        try:
            if os.fstat(self._fd).st_size != self._size:
                return  # this is a signal handler's append, and the one below it is not counted yet
        except OSError:
            return
        self._segments[-1].marks.append((self._count, self._size))
        self._check_at = self._size + self._mark_bytes
        if self._size >= self._segment_bytes:
            self._rotate()
        if self._is_at_cap:
            self._suspend(f"the spool has reached its cap of {self._cap_bytes:,} bytes")

    def _rotate(self) -> None:
        """Begins a new segment; where that fails the full one goes on growing: it is whole and readable."""
        try:
            self._begin_segment()
        except OSError as error:
            if not _is_of_disk(error):
                raise

    def _begin_segment(self) -> None:
        full = self._segments[-1] if self._segments else None
        first_seq = full.first_seq + self._count if full else 0
        path = segment_path(self._path, first_seq)
        fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            opening = records.frame(self._opening())
            size = len(opening)
            if os.write(fd, opening) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            segments = (*self._segments, Segment(path, first_seq))
        except BaseException:
            _discard(fd, path)
            raise
        old = self._fd
        if full:
            if old < 0 or full.first_seq + self._count != first_seq:
                _discard(fd, path)  # a signal handler has appended or closed meanwhile; there will be another time
                return
            full.count, full.size = self._count, self._size
            self._older_bytes += self._size
        self._segments = segments
        self._fd, self._count, self._size, self._check_at = fd, 1, size, self._mark_bytes
        _close(old)

    @property
    def _is_at_cap(self) -> bool:
        return self._older_bytes + self._size >= self._cap_bytes

    def _recover(self, record: bytes, error: BaseException) -> bool:
        """Deals with a write that did not end well, under the lock; True where the record was kept after all.

        Raises what a signal handler raised: Ctrl-C, or the TimeoutError of somebody's alarm.
        """
        torn, self._torn_fd = self._torn_fd, -1
        if not isinstance(error, OSError) or not _is_of_disk(error):
            _close(torn)
            self._reopen()  # the record may be whole: it counts then
            raise error
        if self._closed:
            self.problem = "the spool is closed"
        elif error.errno != errno.EBADF:
            _close(torn)
            self._suspend(error.strerror or str(error))
        elif time.monotonic() >= self._retry_at and self._resume():
            return self._append(record)
        self.refused += 1
        return False

    def _suspend(self, problem: str) -> None:
        """Stops taking records: from here on every write fails on the descriptor -1, and comes to `_recover`."""
        fd, self._fd = self._fd, -1
        self.problem = problem
        self._retry_at = time.monotonic() + _RETRY_S
        _close(fd)

    def _resume(self) -> bool:
        """Tries to take records again, into the same segment."""
        self._retry_at = time.monotonic() + _RETRY_S
        try:
            if self._is_at_cap:
                # The newest segment is never removed, so a full one needs a successor before it can make room.
                if self._size >= self._segment_bytes and self._reopen():
                    self._rotate()
                    self._suspend(self.problem)
                return False
            if not self._reopen():
                return False
        except BaseException:
            self._retry_at = 0.0  # a signal handler's exception says nothing of the disk: the next record tries again
            raise
        self.problem, self._retry_at = "", 0.0
        return True

    def _reopen(self) -> bool:
        """Opens the newest segment again: counts the records that are whole, and cuts off what follows them."""
        if self._closed:
            return False
        segment = self._segments[-1]
        count, size = segment.marks[-1]
        try:
            fd = os.open(segment.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            begin, found = size, os.fstat(fd).st_size
            if found < begin:  # somebody has cut it
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            for _, end in records.scan(os.pread(fd, found - begin, begin)):
                count, size = count + 1, begin + end
            os.ftruncate(fd, size)
        except BaseException as error:
            _close(fd)
            if isinstance(error, OSError) and _is_of_disk(error):
                return False
            raise
        if count < self._count:  # what a signal handler appended behind half a record
            self.refused += self._count - count
        self._count, self._size, self._fd = count, size, fd
        return True


def _is_of_disk(error: OSError) -> bool:
    """False for what a signal handler raised: `TimeoutError("…")` is an OSError too, but without a number."""
    return error.errno is not None


def _close(fd: int) -> None:
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)


def _discard(fd: int, path: str) -> None:
    _close(fd)
    with contextlib.suppress(OSError):
        os.unlink(path)
