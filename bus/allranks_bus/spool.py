"""The spool: a writer's ordered log on local disk, from which nothing is lost when its process dies.

    ROOT/<writer, 32 hex digits>/
        00000000000000000000.seg     named by the seq of its first record
        00000000000000018230.seg     about 16 MiB each; the first record of each is an OPEN
        lock                         a record lock, held for as long as the writer lives

A record is in the page cache when `append` returns: it survives every death of the process, though not that of the
machine. docs/protocol.md §9.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from allranks_bus import records
from allranks_bus.errors import SpoolBusy, SpoolError
from allranks_bus.wire import MAX_BATCH_RECORDS, WRITER_ID_BYTES

SEGMENT_BYTES = 16 * 1024 * 1024
CAP_BYTES = 16 * 1024 * 1024 * 1024
# A batch ends at a mark: large enough that a message's own cost vanishes, small enough that many ranks share a
# socket. A mark is set by bytes alone: the smallest record has 11 bytes, so MAX_BATCH_RECORDS is never exceeded.
MARK_BYTES = 128 * 1024
_RETRY_S = 0.25
_SUFFIX = ".seg"
_LOCK = "lock"


class Log(Protocol):
    """What a shipper needs of a spool: a writer's own, or one that its writer left."""

    @property
    def base(self) -> int:
        """The seq of the oldest record that is still held; the first of a segment."""
        ...

    @property
    def end(self) -> int:
        """The seq that the next record will have."""
        ...

    def read(self, seq: int) -> tuple[int, bytes]:
        """Records from `seq` on, up to the next mark or the end: how many, and their bytes; (0, b"") at the end."""
        ...

    def release(self, seq: int) -> None:
        """Forgets the segments that lie wholly before `seq`."""
        ...


@dataclass
class _Segment:
    path: Path
    first_seq: int
    count: int = 0
    size: int = 0
    # (records, bytes) from the start of the segment, ascending, the first (0, 0): where batches may begin.
    marks: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    @property
    def end_seq(self) -> int:
        return self.first_seq + self.count


class _SegmentFiles:
    """Reads from segments; keeps the one that it reads from open."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._fd = -1

    def read(self, segments: Sequence[_Segment], seq: int) -> tuple[int, bytes]:
        """As `Log.read`."""
        index = bisect_right(segments, seq, key=lambda segment: segment.first_seq) - 1
        if index < 0 or seq >= segments[index].end_seq:
            return 0, b""
        segment = segments[index]
        skip = seq - segment.first_seq
        mark = bisect_right(segment.marks, skip, key=lambda at: at[0]) - 1
        at, begin = segment.marks[mark]
        whole = (segment.count, segment.size)
        to, end = min(segment.marks[mark + 1], whole) if mark + 1 < len(segment.marks) else whole
        body = self._pread(segment.path, begin, end - begin)
        if at < skip:  # an ack fell between two marks: a writer resumed, or a record was passed over
            body = body[_offset_after(body, skip - at) :]
        return to - skip, body

    def _pread(self, path: Path, begin: int, size: int) -> bytes:
        if self._path != path:
            self.close()
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._path = path
        body = os.pread(self._fd, size, begin)
        if len(body) != size:
            raise SpoolError(f"{path} has {begin + len(body)} bytes where {begin + size} were written")
        return body

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
        self._path, self._fd = None, -1


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
        root: Path,
        name: bytes,
        opening: Callable[[], bytes],
        *,
        segment_bytes: int = SEGMENT_BYTES,
        cap_bytes: int = CAP_BYTES,
    ) -> None:
        self.directory = root / name.hex()
        self.refused = 0
        self.problem = ""
        # Reentrant, because a signal handler may log while its thread is in the middle of an append.
        self._lock = threading.RLock()
        # The newest segment's descriptor, records and bytes; -1 while the spool cannot take records. Beyond
        # `_check_at` bytes a mark is due. They are attributes of their own for the hot path's sake.
        self._fd = -1
        self._count = 0
        self._size = 0
        self._check_at = 0
        # Replaced and never changed in place, so that a reader's snapshot stays whole.
        self._segments: tuple[_Segment, ...] = ()
        self._files = _SegmentFiles()
        self._opening = opening
        # A segment is only removed once a newer one exists, so several must fit below the cap.
        self._segment_bytes = min(segment_bytes, cap_bytes // 4)
        self._cap_bytes = cap_bytes
        self._older_bytes = 0
        self._retry_at = 0.0
        self._closed = False
        self._lock_fd = -1
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700)
            self._lock_fd = _take_lock(self.directory)
            self._begin_segment()
        except OSError as error:
            self.abandon()
            raise SpoolError(f"cannot keep a spool in {root}: {error.strerror or error}") from error

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
        """Adds a record; False where it was refused, and counted. Never raises."""
        return self._append(records.frame(payload))

    def read(self, seq: int) -> tuple[int, bytes]:
        with self._lock:
            newest = self._segments[-1]
            newest.count, newest.size = self._count, self._size
            segments = self._segments
        return self._files.read(segments, seq)

    def release(self, seq: int) -> None:
        with self._lock:
            done = [segment for segment in self._segments[:-1] if segment.end_seq <= seq]
            self._segments = self._segments[len(done) :]
            self._older_bytes -= sum(segment.size for segment in done)
            if done:
                self._retry_at = 0.0  # there is room again, perhaps
        for segment in done:
            with contextlib.suppress(OSError):
                segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends the writer; what is not released stays on disk for whoever drains it."""
        with self._lock:
            self.abandon()

    def remove(self) -> None:
        """Ends the writer and removes its directory: everything is stored elsewhere."""
        with self._lock:
            # The lock is given up last, so that nobody begins to drain what is on its way out.
            _remove_segments(self.directory)
            self.abandon()
            _remove_directory(self.directory)

    def abandon(self) -> None:
        """Closes the descriptors and takes no more records; takes no lock, for a forked child that inherited one."""
        self._closed = True
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._fd = self._lock_fd = -1
        self._files.close()

    def _append(self, record: bytes) -> bool:
        """Adds a framed record. The hot path of `log()` repeats these lines in place."""
        with self._lock:
            try:
                if os.write(self._fd, record) != len(record):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                return self._refuse(record, error)
            except BaseException:
                self._settle(len(record))
                raise
            self._count += 1
            self._size += len(record)
            if self._size >= self._check_at:
                self._checkpoint()
            return True

    def _checkpoint(self) -> None:
        """Sets a mark, and begins a new segment when this one is full; under the lock, every 128 KiB."""
        self._segments[-1].marks.append((self._count, self._size))
        self._check_at = self._size + MARK_BYTES
        if self._older_bytes + self._size >= self._cap_bytes:
            self._suspend(f"the spool has reached its cap of {self._cap_bytes:,} bytes")
        elif self._size >= self._segment_bytes:
            # Where that fails the full segment goes on growing: it is whole and readable.
            with contextlib.suppress(OSError):
                self._begin_segment()

    def _begin_segment(self) -> None:
        first_seq = self._segments[-1].first_seq + self._count if self._segments else 0
        path = self.directory / f"{first_seq:020d}{_SUFFIX}"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        opening = records.frame(self._opening())
        try:
            if os.write(fd, opening) != len(opening):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise
        if self._segments:
            full = self._segments[-1]
            full.count, full.size = self._count, self._size
            self._older_bytes += self._size
        if self._fd >= 0:
            os.close(self._fd)
        self._segments = (*self._segments, _Segment(path, first_seq))
        self._fd, self._count, self._size = fd, 1, len(opening)
        self._check_at = MARK_BYTES

    def _refuse(self, record: bytes, error: OSError) -> bool:
        """Deals with an append that failed, under the lock: mends the file, and tries again when it is time to."""
        if self._closed:
            self.problem = "the spool is closed"
        elif self._fd >= 0:
            self._suspend(error.strerror or str(error))
        elif time.monotonic() >= self._retry_at and self._resume():
            return self._append(record)
        self.refused += 1
        return False

    def _settle(self, size: int) -> None:
        """Counts a record that was written when an exception (Ctrl-C) came between its writing and its counting."""
        if self._fd >= 0 and os.fstat(self._fd).st_size - self._size == size:
            self._count += 1
            self._size += size

    def _suspend(self, problem: str) -> None:
        """Stops taking records: from here on every write fails on the descriptor -1, and comes to `_refuse`."""
        self.problem = problem
        self._retry_at = time.monotonic() + _RETRY_S
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._size)  # half a record may have been written
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1

    def _resume(self) -> bool:
        self._retry_at = time.monotonic() + _RETRY_S
        if self._older_bytes + self._size >= self._cap_bytes:
            return False
        try:
            fd = os.open(self._segments[-1].path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.ftruncate(fd, self._size)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        self.problem = ""
        return True


class SpoolReader:
    """The log that a writer left: takes its lock, and gives what is whole in it.

    Where a segment is damaged in its middle, what lies behind the damage is given once what lies before it has been
    released: `base` jumps then.

    Raises:
        SpoolBusy: its writer lives, or somebody else drains it.
        SpoolError: it cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files = _SegmentFiles()
        try:
            self._lock_fd = _take_lock(directory)
        except BlockingIOError:
            raise SpoolBusy(f"the writer of {directory} is alive, or somebody else drains it") from None
        except OSError as error:
            raise SpoolError(f"cannot open the spool {directory}: {error.strerror or error}") from error
        try:
            loaded = [_load(path) for path in sorted(directory.glob(f"*{_SUFFIX}"))]
        except OSError as error:
            os.close(self._lock_fd)
            raise SpoolError(f"cannot read the spool {directory}: {error.strerror or error}") from error
        self._segments = [segment for segment in loaded if segment.count]

    @property
    def is_empty(self) -> bool:
        """True where nothing whole is left in it."""
        return not self._segments

    @property
    def name(self) -> bytes:
        """The writer's 16 bytes."""
        return bytes.fromhex(self.directory.name)

    @property
    def base(self) -> int:
        return self._segments[0].first_seq if self._segments else 0

    @property
    def end(self) -> int:
        return self._segments[-1].end_seq if self._segments else 0

    @property
    def held_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def opening(self) -> bytes:
        """The payload of the OPEN record that begins the oldest segment.

        Raises:
            SpoolError: there is nothing in the spool.
        """
        if not self._segments:
            raise SpoolError(f"the spool {self.directory} is empty")
        _, body = self._files.read(self._segments, self.base)
        begin, end = next(records.scan(body))
        return body[begin:end]

    def read(self, seq: int) -> tuple[int, bytes]:
        return self._files.read(self._segments, seq)

    def release(self, seq: int) -> None:
        while self._segments and self._segments[0].end_seq <= seq:
            self._segments.pop(0).path.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the spool back as it is."""
        self._files.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def remove(self) -> None:
        """Removes the spool: everything in it is stored."""
        _remove_segments(self.directory)
        self.close()
        _remove_directory(self.directory)


def find_spools(root: Path) -> Iterator[Path]:
    """The writers' directories under `root`; those of another owner, and what is behind a link, are left out."""
    try:
        entries = sorted(root.iterdir())
    except OSError:
        return
    for path in entries:
        with contextlib.suppress(OSError, ValueError):
            is_name = len(bytes.fromhex(path.name)) == WRITER_ID_BYTES
            if is_name and not path.is_symlink() and path.is_dir() and path.stat().st_uid == os.getuid():
                yield path


def _load(path: Path) -> _Segment:
    """The whole records of a segment, with marks as its writer would have set them."""
    segment = _Segment(path, int(path.stem))
    body = path.read_bytes()
    for _, end in records.scan(body):
        segment.count += 1
        segment.size = end
        last_count, last_size = segment.marks[-1]
        if end - last_size >= MARK_BYTES or segment.count - last_count >= MAX_BATCH_RECORDS:
            segment.marks.append((segment.count, end))
    return segment


def _offset_after(body: bytes, count: int) -> int:
    """Where the records of `body` after the first `count` begin."""
    for index, (_, end) in enumerate(records.scan(body), 1):
        if index == count:
            return end
    raise SpoolError(f"a segment holds fewer than {count} whole records where it should hold more")


def _take_lock(directory: Path) -> int:
    """The descriptor that holds the directory's lock.

    A POSIX record lock and not flock: a forked child inherits no record lock, so it cannot keep its dead parent's
    spool from being drained.
    """
    fd = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(error.errno, error.strerror) from error
        raise
    return fd


def _remove_segments(directory: Path) -> None:
    for path in directory.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _remove_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):
        (directory / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()
