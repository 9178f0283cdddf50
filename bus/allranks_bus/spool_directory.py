"""A spool's directory: whose it is, who holds it, and how it goes. docs/protocol.md §9."""

from __future__ import annotations

# A tee uses this, and there is one for each rank: it starts in half the time without pathlib, re and typing.
# ruff: noqa: PTH106, PTH108, PTH118, PTH208
import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from allranks_bus.limits import WRITER_ID_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

StrPath = str | os.PathLike[str]

LOCK = "lock"
# struct flock of 64-bit Linux: type, whence, start, length, pid; with the padding that C puts in (fcntl(2)).
_FLOCK = struct.Struct("@hh4xqqi4x")
_HEX = frozenset("0123456789abcdef")


def find_spools(root: Path) -> Iterator[Path]:
    """The writers' directories under `root`; those of another owner, and what is behind a link, are left out."""
    return (root / name for name in spool_names(root))


def spool_names(root: StrPath) -> Iterator[str]:
    """The names of `find_spools`."""
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return
    for name in names:
        if len(name) != 2 * WRITER_ID_BYTES or not _HEX.issuperset(name):
            continue
        with contextlib.suppress(OSError):
            state = os.lstat(os.path.join(root, name))
            if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid():
                yield name


def take_lock(directory: StrPath) -> int:
    """The descriptor that holds the directory's lock.

    A POSIX record lock and not flock: a forked child inherits no record lock, so it cannot keep its dead parent's
    spool from being drained.
    """
    fd = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(error.errno, error.strerror) from error
        raise
    return fd


def is_locked(directory: StrPath) -> bool:
    """Asked with F_GETLK, which takes no lock: a writer that is just coming up must find its spool free."""
    try:
        fd = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
        return bool(answer[0] != fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(fd)


def remove_segments(directory: StrPath) -> None:
    """Removes the segments of a spool, as far as that can be; never raises."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if name.endswith(".seg"):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(directory, name))


def remove_directory(directory: StrPath) -> None:
    """Removes the directory of a spool without segments, with its lock; one that holds anything else stays."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(directory, LOCK))
    with contextlib.suppress(OSError):
        os.rmdir(directory)
