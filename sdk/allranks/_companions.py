"""What lives beside a run's log in a training process: the capture of its console, and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class RunPlace:
    """Where a companion works.

    Attributes:
        writer: the 16 bytes of the writer that it stands beside.
        role: that writer's role.
        directory: the run's directory, which may not exist yet.
        spool_root: where this process's spools lie.
        destination: `offline`, `embedded:HOME`, or a collector's URL.
        env: the environment at `init`, for helpers.
    """

    run: str
    project: str
    host: str
    rank: int
    world_size: int
    launch: str
    writer: bytes
    role: str
    directory: Path
    spool_root: Path
    destination: str
    env: Mapping[str, str] = field(repr=False)


class Companion(Protocol):
    """What a run asks of it."""

    def tick(self) -> None:
        """Called by the publisher's thread, about three times a second; returns within milliseconds."""

    def finish(self, deadline: float) -> bool:
        """Brings in what is left, until `deadline` (monotonic seconds) at most; True where nothing is left."""
        ...

    def leave(self) -> None:
        """Hands what is left over to whoever outlives this process, and waits for nothing."""

    def abandon(self) -> None:
        """In a forked child: closes descriptors, and keeps nothing."""
