"""A spool's directory: whose it is, who holds it, and how it goes. docs/protocol.md §9."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from allranks_bus.limits import WRITER_ID_BYTES

LOCK = "lock"
# struct flock of 64-bit Linux: type, whence, start, length, pid; with the padding that C puts in (fcntl(2)).
_FLOCK = struct.Struct("@hh4xqqi4x")
_WRITER_NAME = re.compile(f"[0-9a-f]{{{2 * WRITER_ID_BYTES}}}")


def find_spools(root: Path) -> Iterator[Path]:
    """The writers' directories under `root`; those of another owner, and what is behind a link, are left out."""
    try:
        entries = sorted(root.iterdir())
    except OSError:
        return
    for path in entries:
        if _WRITER_NAME.fullmatch(path.name) is None:
            continue
        with contextlib.suppress(OSError):
            state = path.lstat()
            if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid():
                yield path


def take_lock(directory: Path) -> int:
    """The descriptor that holds the directory's lock.

    A POSIX record lock and not flock: a forked child inherits no record lock, so it cannot keep its dead parent's
    spool from being drained.
    """
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(error.errno, error.strerror) from error
        raise
    return fd


def is_locked(directory: Path) -> bool:
    """Asked with F_GETLK, which takes no lock: a writer that is just coming up must find its spool free."""
    try:
        fd = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
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


def remove_segments(directory: Path) -> None:
    for path in directory.glob("*.seg"):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def remove_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):
        (directory / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()
