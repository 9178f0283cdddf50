"""The books: what is known of a run, and of a writer, beside what the database has of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from allranks_bus import processes
from allranks_collector.lines import LineStream


@dataclass
class RunBook:
    """A run: its number, and the launches that have been seen of it.

    `told_by`: how well who has told its project and name so far knew them, by `_KNOWS`.
    `told_ns`: when it was last renamed by its program. `starts`: when each launch began, as far as is known yet.
    `worlds`: by launch, the sizes that its ranks give their world.
    """

    run: int
    id: str
    told_by: int = 0
    told_ns: int = 0
    starts: dict[str, int] = field(default_factory=dict[str, int])
    attempts: dict[str, int] = field(default_factory=dict[str, int])
    worlds: dict[str, set[int]] = field(default_factory=dict[str, "set[int]"])

    def begin(self, launch: str, started_ns: int) -> bool:
        """Takes in that a process of this launch has begun; True where that changes what is stored of the attempts.

        Launches are counted by when they began: what the first one has left in its spools may come in last.
        """
        known = self.starts.get(launch)
        if known is not None and started_ns >= known:
            return False
        before = dict(self.attempts)
        self.starts[launch] = started_ns
        self.attempts = {
            each: number for number, each in enumerate(sorted(self.starts, key=self.starts.__getitem__), 1)
        }
        return known is not None or any(self.attempts[each] != number for each, number in before.items())


@dataclass(frozen=True)
class Keyset:
    """A keyset of one writer, ready for use: the series of its names, as int32 and as their bytes."""

    series: np.ndarray[Any, np.dtype[np.int32]]
    series_bytes: bytes


@dataclass
class WriterBook:
    """A writer: where it stands, and what its names and keysets mean."""

    writer: int
    id: bytes
    run: RunBook
    launch: str
    rank: int
    world_size: int
    role: str
    host: str
    process: processes.ProcessIdentity
    parent: str = ""
    wrapper: tuple[int, int] | None = None
    next_seq: int = 0
    last_step: int | None = None
    last_ns: int = 0
    dropped: int = 0
    is_closed: bool = False
    # (key, kind) → series; and keyset number → keyset.
    series: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    keysets: dict[int, Keyset] = field(default_factory=dict[int, Keyset])
    # By stream, what it prints.
    streams: dict[int, LineStream] = field(default_factory=dict[int, LineStream])
    # How often the record at `next_seq` has come broken; and when (monotonic) a RESEND from which seq was sent.
    broken: int = 0
    asked_again_at: float = float("-inf")
    asked_again_seq: int = -1

    @property
    def is_console(self) -> bool:
        """True where it keeps what a rank prints, and is no process that is watched."""
        return self.role == "console"

    @property
    def attempt(self) -> int:
        """The number of its launch, as it is known now."""
        return self.run.attempts[self.launch]
