"""Delivery: what a tee has done where no collector on its host would bring in what it and its rank have left there.

It ships the tee's own spool, and those of its rank's launch whose writers are gone: a rank that was killed, children
that left by `os._exit`. Where the collector does not answer, everything stays for `allranks sync`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allranks_bus.tee.spec import Spec

# Without any progress. All of it must be over some seconds after the rank.
PATIENCE_S = 4.0


def arguments(spec: Spec, name: bytes) -> list[str]:
    """The command that ships the spool `name` first."""
    from allranks_bus.tee.program import BOOT

    boot = BOOT.format(module="allranks_bus.tee.delivery")
    told = (spec.root, name.hex(), spec.destination, spec.run, spec.launch)
    return [sys.executable, "-I", "-S", "-c", boot, ":".join(spec.path), *told]


def main() -> None:
    """Ships, and ends."""
    root, name, destination, run, launch = sys.argv[2:]
    ship(Path(root), name, destination, run, launch)


def ship(root: Path, name: str, destination: str, run: str, launch: str) -> None:
    """Ships the spool `name` under `root`, then the others there of the same launch and destination."""
    # Loaded here: a tee takes its command from this module, and must stay small.
    from allranks_bus.addresses import parse_address
    from allranks_bus.draining import drain
    from allranks_bus.errors import AllranksError
    from allranks_bus.spool_directory import find_spools

    address = parse_address(destination)
    own = root / name
    others = (directory for directory in find_spools(root) if directory != own)
    for directory in (own, *others):
        told = _identity_in(directory)
        if tuple(told.get(key) for key in ("run", "launch", "destination")) != (run, launch, destination):
            continue
        try:
            drained = drain(directory, address, timeout_s=PATIENCE_S)
        except AllranksError:  # its writer lives, or somebody else is at it
            continue
        if not drained.is_done:
            return


def _identity_in(directory: Path) -> Mapping[str, Any]:
    """Whose spool it is, by its first record alone: others may be as large as a disk."""
    from allranks_bus import events, records
    from allranks_bus.errors import ProtocolError
    from allranks_bus.segments import is_segment

    try:
        first = min((path for path in directory.iterdir() if is_segment(path)), default=None)
        if first is None:
            return {}
        with open(first, "rb") as file:
            body = file.read(records.HEADER.size + records.MAX_PAYLOAD_BYTES)
        begin, end = next(records.scan(body))
        return events.check_identity(events.unpack(body[begin:end])[2])
    except (OSError, StopIteration, ProtocolError, IndexError):
        return {}
