"""What lies in a spool, for tests that look at what a run has kept."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from allranks_bus import events, records
from allranks_bus.events import Kind
from allranks_bus.spool_directory import find_spools

Event = list[Any]


def spooled(root: Path) -> list[Event]:
    """All events of ranks and their children in the spools under `root`, in order within each.

    METRICS have their names and values for fields. What consoles have kept is left out.
    """
    found: list[Event] = []
    for directory in find_spools(root):
        events_ = events_of(directory)
        if not events_ or events_[0][2].get("role") != "console":
            found += events_
    return found


def events_of(directory: Path) -> list[Event]:
    """The events of one writer's spool."""
    found: list[Event] = []
    for path in sorted(directory.glob("*.seg")):
        keysets: dict[int, list[str]] = {}
        body = path.read_bytes()
        for begin, end in records.scan(body):
            event = events.unpack(body[begin:end])
            if event[0] == Kind.KEYSET:
                keysets[event[2]] = event[3]
            elif event[0] == Kind.METRICS:
                names = keysets[event[3]]
                event[3:] = [dict(zip(names, struct.unpack(f">{len(names)}d", event[4]), strict=True))]
            found.append(event)
    return found


def logged(found: list[Event]) -> list[tuple[int, dict[str, Any]]]:
    """The (step, fields) of the events that `log()` made, however they were packed."""
    return [(event[2], event[3]) for event in found if event[0] in (Kind.METRICS, Kind.LOG)]


def of_kind(found: list[Event], kind: Kind) -> list[Event]:
    """The events of one kind."""
    return [event for event in found if event[0] == kind]
