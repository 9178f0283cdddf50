"""Scenarios of a training that fails: which rank breaks how, where the ranks are, and what the others do then. Pure.

They are drawn from a seed: the same seed gives the same scenarios.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RANKS = 8

# How a rank may break, and by whose hand: its own, or that of who started it.
BY_ITSELF = ("kill", "segfault", "exit-3", "exception", "terminate", "abort", "stop", "stuck", "hold")
FROM_OUTSIDE = ("killed-at-any-moment", "lost-node", "cut-link")
_OF_HOSTS = frozenset({"lost-node", "cut-link"})

# Where the ranks are, by their order: 0 is the collector's host, where their processes can be seen.
PLACES: Mapping[str, Sequence[int]] = {
    "one host": (0,) * RANKS,
    "beside": (0, 0, 1, 1, 2, 2, 3, 3),
    "apart": (1, 1, 2, 2, 3, 3, 4, 4),
}
# In whose words the others tell that they have lost a peer.
WORDS = ("demo", "gloo", "nccl", "reset")
_CLOCKS_S = (-420.0, 420.0)


@dataclass(frozen=True)
class Scenario:
    """What goes wrong.

    Attributes:
        fault: one of BY_ITSELF or FROM_OUTSIDE.
        victim: the rank that breaks; of a host that is lost, one of its ranks.
        place: the hosts of the ranks, by PLACES.
        at_step: in which step.
        step_s: how long a step takes.
        words: what an exception sounds like that the break of another brings about.
        logs_first: whether a step is logged before its collective, or after it.
        launcher_s: how long after a rank's end its launcher tells the others of its host to end; None: never.
        clocks_s: how wrong the clocks of the hosts are.
    """

    number: int
    fault: str
    victim: int
    place: str
    at_step: int
    step_s: float
    words: str
    logs_first: bool
    launcher_s: float | None
    clocks_s: Sequence[float]

    @property
    def hosts(self) -> Sequence[int]:
        """The host of each rank."""
        return PLACES[self.place]

    @property
    def guilty(self) -> frozenset[int]:
        """The ranks that may rightly be named."""
        if self.fault not in _OF_HOSTS:
            return frozenset({self.victim})
        return frozenset(rank for rank, host in enumerate(self.hosts) if host == self.hosts[self.victim])


@dataclass(frozen=True)
class Named:
    """What a scenario came to: the rank and the host that were named, None for nobody."""

    rank: int | None
    host: str | None

    def is_right(self, scenario: Scenario, hosts: Sequence[str]) -> bool:
        """Whether that is what broke; `hosts` are the names of the ranks' hosts."""
        return self.rank in scenario.guilty and self.host == hosts[scenario.victim]

    def is_wrong_host(self, scenario: Scenario, hosts: Sequence[str]) -> bool:
        """Whether somebody would take the wrong host out."""
        return self.host is not None and self.host != hosts[scenario.victim]


def scenarios(count: int, seed: int) -> list[Scenario]:
    """So many scenarios, of which each way to break has its share."""
    draw = random.Random(seed)
    faults = [*BY_ITSELF, *FROM_OUTSIDE]
    chosen: list[str] = []
    while len(chosen) < count:
        draw.shuffle(faults)
        chosen += faults
    return [_scenario(draw, number, fault) for number, fault in enumerate(chosen[:count])]


def _scenario(draw: random.Random, number: int, fault: str) -> Scenario:
    # A host can be lost where the collector is not.
    place = draw.choice([name for name in PLACES if fault not in _OF_HOSTS or name != "one host"])
    victims = [rank for rank, host in enumerate(PLACES[place]) if host or fault not in _OF_HOSTS]
    return Scenario(
        number,
        fault,
        draw.choice(victims),
        place,
        draw.randint(25, 40),
        draw.uniform(0.05, 0.2),
        draw.choice(WORDS),
        draw.random() < 0.5,
        draw.uniform(0.05, 2.0) if draw.random() < 0.7 else None,
        [0.0, *(draw.uniform(*_CLOCKS_S) if draw.random() < 0.5 else 0.0 for _ in range(max(PLACES["apart"])))],
    )


def named_by(why: Mapping[str, Any]) -> Named:
    """Whom the answer of `why` names: the first failure, else the first of those that stand still."""
    told = why["first"] or next(iter(why["stalled"]), None)
    return Named(None, None) if told is None else Named(told["rank"], told["host"])
