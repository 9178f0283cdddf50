"""Draining every spool under a root at once, for tests that look at what comes in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from allranks_bus.addresses import Address
from allranks_bus.draining import Drained, drain
from allranks_bus.errors import SpoolBusy
from allranks_bus.spool_directory import find_spools


def drain_all(root: Path, address: Address) -> Iterator[Drained]:
    """What became of each spool whose writer is gone."""
    for directory in find_spools(root):
        try:
            yield drain(directory, address)
        except SpoolBusy:
            continue
