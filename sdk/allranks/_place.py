"""Where in a run a process stands, and where on its host the run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


# Nobody compares or prints it, and `init` waits for each method that a dataclass is given.
@dataclass(frozen=True, eq=False, repr=False)
class RunPlace:
    """Where a companion of a run works.

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
    env: Mapping[str, str]
