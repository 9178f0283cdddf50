"""A file to be sent: opened without surprises, read as one state of it, and asked whether somebody still writes it.

Nothing but a regular file of this user is read, and nothing outside the folder that it is sent from, whatever links
lead there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from allranks_bus.errors import AllranksError

# Read in one go: so such a file is sent as it was at one moment, whoever writes to it meanwhile.
SMALL_BYTES = 4 * 1024 * 1024

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY


class CannotSend(AllranksError):
    """A file is none that may be sent; the message says why."""


class FileChanged(AllranksError):
    """A file is not what it was when it was found."""


class State(NamedTuple):
    """One state of a file: whatever is written to it later makes another one."""

    size: int
    modified_ns: int
    inode: int


class Writers(Enum):
    """Whether some process has a file open for writing."""

    NONE = "none"
    SOME = "some"
    UNKNOWN = "unknown"


def state_of(status: os.stat_result) -> State:
    """The state that `status` shows."""
    return State(status.st_size, status.st_mtime_ns, status.st_ino)


def resolve(path: str, root: str) -> str:
    """The path of the file that `path`, a symbolic link, means.

    Args:
        root: the folder that it must not lead out of, without links in its own path.

    Raises:
        CannotSend: it leads out.
    """
    real = os.path.realpath(path)
    if not _is_inside(real, root):
        raise CannotSend(f"{path} leads out of {root}, to {real}: it is not sent")
    return real


def open_file(path: str, root: str, owner: int) -> int:
    """A descriptor of the file at `path`, which is no symbolic link.

    Args:
        root: the folder that it must lie in, without links in its own path.
        owner: the user whose file it must be.

    Raises:
        CannotSend: it is not such a file.
        OSError: it cannot be opened.
    """
    try:
        fd = os.open(path, _OPEN)
    except OSError as error:
        if error.errno == errno.ELOOP:  # it has become a link since it was found
            raise FileChanged(path) from error
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CannotSend(f"{path} is no regular file: it is not sent")
        if status.st_uid != owner:
            raise CannotSend(f"{path} belongs to another user ({status.st_uid}): it is not sent")
        # A folder on the way may be a link, too; the kernel knows where it has come out.
        real = str(Path(f"/proc/self/fd/{fd}").readlink())
        if not _is_inside(real, root):
            raise CannotSend(f"{path} leads out of {root}, to {real}: it is not sent")
    except BaseException:
        os.close(fd)
        raise
    return fd


def writers_of(fd: int) -> Writers:
    """Whether some process has the file open for writing, as far as the kernel tells.

    It gives a read lease only where nobody has. The lease is given back at once, for whoever opens the file for
    writing waits for that; the signal that would tell us so is one that is ignored unless it is handled.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writers.SOME if error.errno == errno.EAGAIN else Writers.UNKNOWN
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return Writers.NONE


class Source:
    """A file that is being sent, in the state in which it was found.

    Raises:
        CannotSend: it may not be sent.
        FileChanged: it is in another state now.
        OSError: it cannot be opened or read.
    """

    def __init__(self, path: str, root: str, owner: int, state: State) -> None:
        self._path = path
        self._state = state
        self._content: bytes | None = None
        self._fd = open_file(path, root, owner)
        try:
            self.check()
            if state.size <= SMALL_BYTES:
                self._content = self._read(0, state.size)
                self.check()
                self.close()
        except BaseException:
            self.close()
            raise

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, which the file has."""
        if self._content is not None:
            return self._content[offset : offset + length]
        body = self._read(offset, length)
        self.check()
        return body

    def check(self) -> None:
        """Returns where the file is still what it was when it was found."""
        if self._content is None:
            status = os.fstat(self._fd)
            if state_of(status) != self._state or not status.st_nlink:
                raise FileChanged(self._path)

    def close(self) -> None:
        """Lets go of it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _read(self, offset: int, length: int) -> bytes:
        body = os.pread(self._fd, length, offset)
        if len(body) != length:
            raise FileChanged(self._path)
        return body


def _is_inside(path: str, root: str) -> bool:
    return path.startswith(root.rstrip("/") + "/")
