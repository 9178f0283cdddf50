"""What lies in the spools of this host, without touching any: whose writers live, and what waits to be brought in."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from allranks_bus.spool_directory import find_spools, is_locked

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


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
    return [SpoolState(path, _held_bytes(path), is_locked(path)) for path in found.values()]


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
