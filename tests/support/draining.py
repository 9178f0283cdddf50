"""Draining every spool under a root at once, for tests that look at what comes in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from allranks_bus.addresses import Address
from allranks_bus.draining import GLANCE_S, Drained, drain
from allranks_bus.errors import SpoolBusy
from allranks_bus.spool_directory import find_spools


def drain_all(root: Path, address: Address) -> Iterator[Drained]:
    """What became of each spool whose writer is gone."""
    for directory in find_spools(root):
        drained = _drain(directory, address, tries=2)
        if drained is not None:
            yield drained


def _drain(directory: Path, address: Address, *, tries: int) -> Drained | None:
    try:
        return drain(directory, address)
    except SpoolBusy:
        # Where a collector looks at it just now, it is not for long.
        time.sleep(GLANCE_S)
        return _drain(directory, address, tries=tries - 1) if tries > 1 and directory.exists() else None
