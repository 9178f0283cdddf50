"""Stragglers (pure): which rank the others wait for, how much that costs, and in which section.

Ranks that train together all end a step together, however slow one of them is: its own work takes longer, and the
others wait for it in a collective. So what is compared is the work before that: the time in sections other than those
in which ranks wait for each other (`WAITS`). Where such a section is marked too, what is not marked is work as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# Sections in which a rank waits for others: long there is who was early.
WAITS = frozenset(
    {"sync", "synchronize", "wait", "barrier", "collective", "comm", "communication"}
    | {"all_reduce", "allreduce", "all_gather", "allgather", "reduce_scatter", "broadcast", "grad_sync"}
)
# The name of work that no section was marked for.
UNMARKED = "(unmarked)"
# Slow is who costs at least so much of the time that was compared, and so many seconds.
SLOW_SHARE = 0.02
SLOW_S = 1.0


@dataclass(frozen=True)
class Work:
    """What one rank worked in one stretch of steps.

    Attributes:
        stretch: the same number for the same steps of all ranks.
        steps: how many of them its figures are of.
        seconds: how long they took it, waiting and all.
        spent: seconds by section, without those of sections within.
    """

    rank: int
    stretch: int
    steps: int
    seconds: float
    spent: Mapping[str, float]

    @property
    def own(self) -> dict[str, float]:
        """Its work before it waited for anybody, by section."""
        own = {name: spent for name, spent in self.spent.items() if not is_wait(name)}
        if len(own) < len(self.spent):
            own[UNMARKED] = max(0.0, self.seconds - sum(self.spent.values()))
        return own


@dataclass
class Straggler:
    """What one rank's work has cost beyond that of the median rank.

    Attributes:
        lost_s: seconds, as if it alone were slow; 0 for who is no slower than half of all.
        by_section: those of each section; negative where it was faster.
        worst: the stretch that cost most.
    """

    rank: int
    lost_s: float = 0.0
    by_section: dict[str, float] = field(default_factory=dict[str, float])
    worst: int | None = None
    _worst_s: float = 0.0

    @property
    def section(self) -> str | None:
        """The section that costs most; None where none costs anything."""
        name = max(self.by_section, key=lambda name: self.by_section[name], default=None)
        return name if name is not None and self.by_section[name] > 0 else None

    def add(self, stretch: int, excess: Mapping[str, float]) -> None:
        """Takes in what a stretch has cost, by section."""
        total = sum(excess.values())
        self.lost_s += total
        for name, seconds in excess.items():
            self.by_section[name] = self.by_section.get(name, 0.0) + seconds
        if total > self._worst_s:
            self._worst_s, self.worst = total, stretch


@dataclass(frozen=True)
class Ranking:
    """Who costs most comes first.

    Attributes:
        seconds: the time that was compared, as the median rank took it.
        lost_s: of it, what the slowest rank of each stretch cost all.
    """

    ranks: tuple[Straggler, ...]
    seconds: float
    lost_s: float

    def is_slow(self, straggler: Straggler) -> bool:
        """True where it costs more than chance does."""
        return straggler.lost_s >= max(SLOW_S, SLOW_SHARE * self.seconds)


def is_wait(section: str) -> bool:
    """True for a section in which ranks wait for each other; of a path such as `train/sync` the last part tells."""
    return section.rpartition("/")[2].lower() in WAITS


def ranking(works: Iterable[Work]) -> Ranking:
    """Compares each rank's own work with that of the median rank, stretch by stretch.

    What a rank is slower in some stretches and faster in others evens out: by chance nobody is a straggler. Stretches
    of fewer than two ranks tell nothing.
    """
    stretches: dict[int, list[Work]] = {}
    for work in works:
        if work.steps > 0:
            stretches.setdefault(work.stretch, []).append(work)
    found: dict[int, Straggler] = {}
    seconds = lost = 0.0
    for number, together in sorted(stretches.items()):
        if len(together) < 2:
            continue
        # Figures of one rank may cover a few steps more than those of another.
        steps = _median([work.steps for work in together])
        scaled = [(work, steps / work.steps) for work in together]
        seconds += _median([work.seconds * scale for work, scale in scaled])
        own = {work.rank: {name: spent * scale for name, spent in work.own.items()} for work, scale in scaled}
        names = {name for sections in own.values() for name in sections}
        usual = {name: _median([sections.get(name, 0.0) for sections in own.values()]) for name in names}
        most = 0.0
        for rank, sections in own.items():
            excess = {name: sections.get(name, 0.0) - usual[name] for name in names}
            found.setdefault(rank, Straggler(rank)).add(number, excess)
            most = max(most, sum(excess.values()))
        lost += most
    for straggler in found.values():
        straggler.lost_s = max(0.0, straggler.lost_s)
    return Ranking(tuple(sorted(found.values(), key=lambda one: (-one.lost_s, one.rank))), seconds, lost)


def _median(values: Sequence[float]) -> float:
    """The lower one of the two in the middle: of two ranks the faster one is what the other is compared with."""
    return sorted(values)[(len(values) - 1) // 2]
