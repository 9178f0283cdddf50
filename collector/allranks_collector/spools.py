"""What lies in the spools of this host, without touching any: whose writers live, and what waits to be brought in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allranks_bus.spool_directory import find_spools

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# struct flock of 64-bit Linux: type, whence, start, length, pid; with the padding that C puts in (fcntl(2)).
_FLOCK = struct.Struct("@hh4xqqi4x")


@dataclass(frozen=True)
class SpoolState:
    """One writer's spool.

    Attributes:
        directory: where it is; its name is the writer's.
        bytes: of records that the collector has not acked, or that nobody has removed yet.
        in_use: its writer lives, or somebody drains it.
    """

    directory: Path
    bytes: int
    in_use: bool


def look_at_spools(roots: Iterable[Path]) -> list[SpoolState]:
    """The state of every spool under `roots` that belongs to this user."""
    found = {path.resolve(): path for root in roots for path in find_spools(root)}
    return [SpoolState(path, _held_bytes(path), _is_locked(path)) for path in found.values()]


def orphans(spools: Iterable[SpoolState]) -> list[SpoolState]:
    """Those whose writer is gone, with something in them."""
    return [spool for spool in spools if not spool.in_use and spool.bytes]


def _held_bytes(directory: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if entry.name.endswith(".seg"):
                total += entry.stat().st_size
    return total


def _is_locked(directory: Path) -> bool:
    """Asked with F_GETLK, which takes no lock: a writer that is just coming up must find its spool free."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
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
