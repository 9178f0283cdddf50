"""A file on its way in: what has come of it, and the hash of that.

One thread works on it. What is in it is always a beginning of the file that is sent: pieces are appended in order,
each checked before. So whoever sends the file next goes on at its end, once the hash has been taken up again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

# So much is written before the disk is set to work on it, and so much before that is waited for and dropped from the
# page cache. Else a file of gigabytes would gather there: commits of the database on the same disk would wait for
# it, and what trainings read would be pushed out. The early start has the disk and the hash work at the same time.
START_BYTES = 4 * 1024 * 1024
FLUSH_BYTES = 32 * 1024 * 1024
_READ_BYTES = 1024 * 1024


class Partial:
    """The file at `path`, made if need be, of which `size` bytes are to come.

    Attributes:
        offset: all before it is there, and in the hash.

    Raises:
        OSError: it cannot be opened, written or read; close it then: the next one takes up what is there.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.offset = 0
        self._hash = hashlib.sha256()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._there = os.fstat(self._fd).st_size
        self._started = self._flushed = self._there
        if self._there > size:  # not of this file
            os.ftruncate(self._fd, 0)
            self._there = self._started = self._flushed = 0

    @property
    def is_taken_up(self) -> bool:
        """True once all that was there when it was opened is in the hash; nothing is written before."""
        return self.offset >= self._there

    def take_up(self, limit_bytes: int) -> None:
        """Reads on in what is there, for about `limit_bytes`."""
        end = min(self._there, self.offset + limit_bytes)
        while self.offset < end:
            body = os.pread(self._fd, min(_READ_BYTES, end - self.offset), self.offset)
            if not body:
                raise OSError(f"{self.path} has become shorter")
            self._hash.update(body)
            self.offset += len(body)

    def write(self, body: bytes | memoryview) -> None:
        """Appends `body`, which has been checked, and fits into the size."""
        rest, at = memoryview(body), self.offset
        while rest:
            written = os.pwrite(self._fd, rest, at)
            rest, at = rest[written:], at + written
        self._hash.update(body)
        self.offset = self._there = at
        if at - self._started >= START_BYTES:
            # Starts to write what is dirty, and drops what is not (Linux's mm/fadvise.c).
            os.posix_fadvise(self._fd, self._started, at - self._started, os.POSIX_FADV_DONTNEED)
            self._started = at
        if at - self._flushed >= FLUSH_BYTES:
            os.fdatasync(self._fd)
            os.posix_fadvise(self._fd, self._flushed, at - self._flushed, os.POSIX_FADV_DONTNEED)
            self._flushed = at

    def seal(self) -> str:
        """Makes what is there durable; its digest, SHA-256 in hex. All must have come."""
        os.fsync(self._fd)
        self.close()
        return self._hash.hexdigest()

    def close(self) -> None:
        """Lets go of it; twice is fine. What is there stays, but for nothing at all."""
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            if self.size and not os.fstat(fd).st_size:
                self.path.unlink()
        os.close(fd)

    def drop(self) -> None:
        """Lets go of it, and removes it."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
