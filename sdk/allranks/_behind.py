"""Whose console it is: the writer that keeps a rank's output, and the pipe that a process finds itself behind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from allranks._place import RunPlace

# What a captured process tells those that it starts: whose pipe they print into.
BEHIND_VARIABLE = "ALLRANKS_CONSOLE_BEHIND"


class Behind:
    """Whose pipe a process prints into: its tee's door, the rank that it keeps for, and the key of each stream."""

    def __init__(self, door: str, rank: str, keys: Mapping[int, str]) -> None:
        self.door = door
        self.rank = rank
        self.keys = keys

    def __str__(self) -> str:
        return ":".join((self.door, self.rank, *(f"{number}={key}" for number, key in self.keys.items())))

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Behind:
        """What the environment of a process tells."""
        return cls.parse(env.get(BEHIND_VARIABLE, ""))

    @classmethod
    def parse(cls, text: str) -> Behind:
        """What `str` gave; of anything else, nobody's pipe."""
        door, rank, *told = [*text.split(":"), "", ""][: max(2, text.count(":") + 1)]
        pairs = (entry.partition("=") for entry in told)
        return cls(door, rank, {int(number): key for number, _, key in pairs if number in ("1", "2")})

    def keeps(self, place: RunPlace, number: int, key: str) -> bool:
        """Whether what goes to `key` as the stream `number` is kept there already, for this very rank."""
        return self.rank == rank_of(place) and self.keys.get(number) == key


def rank_of(place: RunPlace) -> str:
    """What tells a rank from all others, in one word."""
    return f"{place.run}/{place.launch}/{place.rank}"


def identity_of(place: RunPlace) -> dict[str, Any]:
    """The OPEN map of a console: a writer beside its rank's, and no process that anybody watches."""
    return {
        "run": place.run,
        "project": place.project,
        "launch": place.launch,
        "rank": place.rank,
        "world_size": place.world_size,
        "role": "console",
        # It may be heard first, and leaves it to its rank to tell what the run is called.
        "implied": True,
        "parent": place.writer,
        "host": place.host,
        "pid": os.getpid(),
        "destination": place.destination,
    }
