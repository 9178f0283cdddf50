"""An outbox: what of a run's files is to be sent from this host, and how far that is.

    SPOOL_ROOT/outbox-<hash>/
        about.json      whose it is, and where it is meant to go
        users           each training process that uses it locks one byte, that of its pid, for as long as it lives
        lock            locked by the process that ships
        wanted.jsonl    appended by the training processes: who they are, what they want saved, and flushes
        sent.jsonl      appended by the shipping process: what is stored
        told.jsonl      appended by the shipping process, for the training processes: flushes that are done, problems
        start           touched when a shipping process is started
        shipper.log     what that prints

The locks are POSIX record locks: they end with their process, however that ends, and no forked child has them. They
also end when their process closes *any* descriptor of the file, so nothing here opens `users` of an outbox that this
process itself uses.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from allranks_bus.spool_directory import LOCK, take_lock

ABOUT, USERS, WANTED, SENT, TOLD = "about.json", "users", "wanted.jsonl", "sent.jsonl", "told.jsonl"
START, LOG = "start", "shipper.log"
# To remove an outbox takes less than a millisecond.
_JOIN_TRIES, _JOIN_AGAIN_S = 100, 0.002
_NAME = re.compile("outbox-[0-9a-f]{32}")
# struct flock of fcntl(2): type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi0q")
# (process, outbox) → [descriptor that holds the lock, how often it is held].
_held: dict[tuple[int, Path], list[int]] = {}


@dataclass(frozen=True)
class About:
    """Whose files an outbox is for.

    Attributes:
        folder: the run's directory on this host.
        destination: `offline`, `embedded:HOME`, or a collector's URL.
        launch: of whoever made the outbox.
    """

    run: str
    project: str
    launch: str
    host: str
    folder: str
    destination: str


@dataclass(frozen=True)
class Found:
    """An outbox that lies under a spool root.

    Attributes:
        about: None where its maker died before it had written that.
        has_users: a training process uses it.
        is_shipped: a process ships it.
    """

    directory: Path
    about: About | None
    has_users: bool
    is_shipped: bool


def outbox_path(root: Path, about: About) -> Path:
    """Where the outbox for these files lies: the same for all processes of a run that share the folder."""
    key = f"{about.run}\0{about.folder}\0{about.destination}".encode("utf-8", "surrogateescape")
    return root / f"outbox-{hashlib.sha256(key).hexdigest()[:32]}"


def find_outboxes(root: Path) -> Iterator[Found]:
    """The outboxes under `root`; those of another owner, and what is behind a link, are left out.

    Not for a process that uses an outbox under this root itself: it would lose its locks.
    """
    try:
        entries = sorted(root.iterdir())
    except OSError:
        return
    for path in entries:
        if _NAME.fullmatch(path.name) is None:
            continue
        with contextlib.suppress(OSError):
            state = path.lstat()
            if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid():
                yield Found(path, read_about(path), is_locked(path / USERS), is_locked(path / LOCK))


def read_about(directory: Path) -> About | None:
    """What `about.json` says; None where it is not there, or is none."""
    try:
        told = json.loads((directory / ABOUT).read_text())
        about = About(**{field.name: told[field.name] for field in fields(About)})
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return about if all(isinstance(text, str) for text in asdict(about).values()) else None


def is_locked(path: Path) -> bool:
    """True while another process holds a lock on the file at `path`; takes none itself.

    A lock of this very process does not count, and is lost by asking.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return is_held(fd)
    finally:
        os.close(fd)


def is_held(fd: int, but: int | None = None) -> bool:
    """True while another process holds a lock on an open file; with `but`, one that is not of that pid's."""
    ranges = ((0, 0),) if but is None else ((0, but), (but + 1, 0))
    for start, length in ranges:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        if _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK:
            return True
    return False


# -- training processes ----------------------------------------------------------------------------------------------


def join(directory: Path, about: About) -> None:
    """Makes this process a user of the outbox, which is made if need be. `leave` takes that back.

    Raises:
        OSError: it cannot be made.
    """
    held = _held.get((os.getpid(), directory))
    if held is not None and os.fstat(held[0]).st_nlink:
        held[1] += 1
        return
    count = held[1] if held is not None else 0
    if held is not None:  # it has been removed under this process
        os.close(held[0])
        del _held[os.getpid(), directory]
    for _ in range(_JOIN_TRIES):
        try:
            _held[os.getpid(), directory] = [_hold(directory, about), count + 1]
            return
        except (BlockingIOError, FileNotFoundError):
            time.sleep(_JOIN_AGAIN_S)  # somebody is removing it at this moment
    raise BlockingIOError(errno.EAGAIN, "it is being removed by another process", str(directory))


def _hold(directory: Path, about: About) -> int:
    """The descriptor that holds this process's lock."""
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(directory / USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, os.getpid())
        if not os.fstat(fd).st_nlink:  # it was removed between the two
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if not (directory / ABOUT).exists():
            temporary = directory / f".{ABOUT}.{os.getpid()}"
            temporary.write_text(json.dumps(asdict(about), indent=1))
            temporary.replace(directory / ABOUT)
    except BaseException:
        os.close(fd)
        raise
    return fd


def leave(directory: Path) -> None:
    """This process does not use the outbox any more, as far as this caller goes."""
    held = _held.get((os.getpid(), directory))
    if held is not None:
        held[1] -= 1
        if not held[1]:
            del _held[os.getpid(), directory]
            os.close(held[0])


def abandon(directory: Path) -> None:
    """In a forked child: closes the descriptors of the parent, whose locks stay as they are."""
    for pid, path in list(_held):
        if path == directory and pid != os.getpid():
            os.close(_held.pop((pid, path))[0])


def remove_unused(directory: Path) -> None:
    """Removes an outbox in which nobody has ever wanted anything, unless somebody uses it or ships it."""
    with contextlib.suppress(OSError):
        lock = take_lock(directory)
        try:
            if not (directory / WANTED).exists():
                remove(directory)
        finally:
            os.close(lock)


# -- whoever removes it ----------------------------------------------------------------------------------------------


def remove(directory: Path) -> bool:
    """Removes an outbox in which nothing is left; False where a process uses it. For whoever holds `lock`."""
    try:
        users = os.open(directory / USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        # Whoever wants to use it now is kept waiting, and makes a new one.
        fcntl.lockf(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for entry in os.scandir(directory):
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()
        directory.rmdir()
    except OSError:
        return False
    finally:
        os.close(users)
    return True


# -- lines -----------------------------------------------------------------------------------------------------------


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Appends a line, which is whole or not there for whoever reads; from any process at any time.

    Raises:
        OSError: it cannot be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # The first break ends what somebody was killed in the middle of.
        text = f"\n{json.dumps(dict(line))}\n".encode()
        if os.write(fd, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(fd)


class Lines:
    """The lines that are appended to a file, as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Those that have come since the last time; what is no line of ours is left out."""
        try:
            if self._path.stat().st_size <= self._offset:
                return []
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                more = file.read()
        except OSError:
            return []
        self._offset += len(more)
        *whole, self._rest = (self._rest + more).split(b"\n")
        found: list[dict[str, Any]] = []
        for text in whole:
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text) if text else None
                if isinstance(line, dict):
                    found.append(line)
        return found
