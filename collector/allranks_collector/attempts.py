"""Attempts as lineage, and what of a run's time brought it on: its goodput. Pure, over what was logged.

A run's time begins with its first attempt and ends with the end of its last one, or now. Every moment of it is
counted in one of these, which therefore sum up to the total:

init            from an attempt's start (the first `init` call of its ranks) to its first step: the building of the
                model, the loading of a checkpoint, the first compilation; all of an attempt without a step
productive      on the way to steps that no attempt had reached before, with the evaluations and the saving of
                checkpoints in between; and from the last step to the end, where that was a good one
recomputation   on the way to steps that had been reached before: by an earlier attempt, or by this one, if it went
                back itself
stalled         in which the rank that is looked at was `stalled`: from its last step until it went on, or until now
detection       from the last step of an attempt that ended badly to its end: until the failure was known, and its
                last rank gone
restart         from the end of an attempt to the start of the next one: the queue, the launcher, the imports

So goodput is how much of the time went into steps that count, not how fast they were; the saving of a checkpoint does
not lessen it, the loading does. An attempt is seen through the steps that one of its ranks has logged: what is logged
rarely is known coarsely. Two attempts at once are counted as if the newer one had ended the older.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

SECOND_NS = 10**9


@dataclass(frozen=True)
class AttemptFacts:
    """What is known of an attempt; times are ns of one clock.

    Attributes:
        ended_ns: None while any of its ranks lives.
        is_well: all of its ranks have finished.
        path: when which step was logged, by one of its ranks, by time.
        stalls: from when until when that rank stood still.
        last_step: the furthest that any of its ranks has come.
    """

    attempt: int
    began_ns: int
    ended_ns: int | None = None
    is_well: bool = False
    path: Sequence[tuple[int, int]] = ()
    stalls: Sequence[tuple[int, int]] = ()
    last_step: int | None = None


@dataclass
class Goodput:
    """Where a run's time went, in ns."""

    productive_ns: int = 0
    init_ns: int = 0
    stalled_ns: int = 0
    detection_ns: int = 0
    restart_ns: int = 0
    recomputation_ns: int = 0

    @property
    def total_ns(self) -> int:
        """All of it."""
        return sum(int(getattr(self, part.name)) for part in fields(self))


@dataclass(frozen=True)
class Lineage:
    """Where an attempt stands in its run.

    Attributes:
        first_step, last_step: None where it has made none.
        resumed_from: its first step, where that is beyond the run's first; None: it began at the beginning.
        recomputed: how many of its steps had been reached before.
    """

    attempt: int
    first_step: int | None
    last_step: int | None
    resumed_from: int | None
    recomputed: int


@dataclass(frozen=True)
class Account:
    """The lineage of each attempt, in their order, and the goodput of all."""

    lineage: list[Lineage] = field(default_factory=list[Lineage])
    goodput: Goodput = field(default_factory=Goodput)

    @property
    def fraction(self) -> float | None:
        """Which part of the time was productive; None before the first step."""
        has_begun = any(one.first_step is not None for one in self.lineage)
        total_ns = self.goodput.total_ns
        return self.goodput.productive_ns / total_ns if has_begun and total_ns else None


def account(attempts: Iterable[AttemptFacts], now_ns: int) -> Account:
    """The account of all attempts of a run.

    Args:
        now_ns: until when an attempt is counted that has not ended.
    """
    ordered = sorted(attempts, key=lambda facts: facts.attempt)
    found = Account()
    began = [facts.began_ns for facts in ordered]
    for place in range(1, len(began)):
        began[place] = max(began[place], began[place - 1])
    origin: int | None = None
    reached: int | None = None
    for place, facts in enumerate(ordered):
        is_last = place + 1 == len(ordered)
        lives = is_last and facts.ended_ns is None
        ended_ns = max(now_ns if facts.ended_ns is None else facts.ended_ns, began[place])
        if not is_last:
            ended_ns = min(ended_ns, began[place + 1])
            found.goodput.restart_ns += began[place + 1] - ended_ns
        walk = _Walk(found.goodput, began[place], ended_ns, reached)
        walk.take(facts, ends_well=facts.is_well or lives)
        steps = [step for _, step in facts.path]
        first = min(steps, default=None)
        furthest = [*steps, *([facts.last_step] if facts.last_step is not None else [])]
        is_resumed = first is not None and origin is not None and first > origin
        found.lineage.append(
            Lineage(facts.attempt, first, max(furthest, default=None), first if is_resumed else None, walk.recomputed)
        )
        origin = min((step for step in (origin, first) if step is not None), default=None)
        reached = max((step for step in (reached, *furthest) if step is not None), default=None)
    return found


class _Walk:
    """The way through the time of one attempt, `began_ns` to `ended_ns`; adds to `goodput`."""

    def __init__(self, goodput: Goodput, began_ns: int, ended_ns: int, reached: int | None) -> None:
        self.recomputed = 0
        self._goodput = goodput
        self._at_ns = began_ns
        self._ended_ns = ended_ns
        # The furthest step that has been reached so far, by whichever attempt.
        self._reached = reached
        self._step: int | None = None
        self._stalls: deque[tuple[int, int]] = deque()

    def take(self, facts: AttemptFacts, *, ends_well: bool) -> None:
        """Counts all of the attempt; `ends_well`: it lives, or has finished."""
        self._stalls = deque(_united(facts.stalls))
        for time_ns, step in sorted(facts.path, key=lambda sample: sample[0]):
            self._go(min(max(time_ns, self._at_ns), self._ended_ns), step)
        left_ns = self._ended_ns - self._at_ns
        if self._step is None:
            self._goodput.init_ns += left_ns
        elif not ends_well:
            self._goodput.detection_ns += left_ns
        else:
            self._spend(self._ended_ns, int(self._is_behind(self._step)), 1)

    def _go(self, time_ns: int, step: int) -> None:
        before, reached = self._step, self._reached
        if before is None:
            self._goodput.init_ns += time_ns - self._at_ns
            self._at_ns = time_ns
            old = int(reached is not None and step <= reached)
        elif step > before:
            old = max(0, min(step, reached if reached is not None else before) - before)
            self._spend(time_ns, old, step - before)
        else:
            # The same step once more is a part of it; an earlier one is done again.
            old = int(step < before)
            self._spend(time_ns, int(self._is_behind(step)), 1)
        self.recomputed += old
        self._step = step
        self._reached = step if reached is None else max(reached, step)

    def _is_behind(self, step: int) -> bool:
        return self._reached is not None and step < self._reached

    def _spend(self, until_ns: int, old: int, new: int) -> None:
        """Counts the time up to a moment: `old` of `new` steps had been reached before, where nothing stood still."""
        stalled_ns = 0
        while self._stalls and self._stalls[0][0] < until_ns:
            begin_ns, end_ns = self._stalls[0]
            stalled_ns += max(0, min(until_ns, end_ns) - max(self._at_ns, begin_ns))
            if end_ns > until_ns:
                break
            self._stalls.popleft()
        moving_ns = until_ns - self._at_ns - stalled_ns
        again_ns = moving_ns * old // new
        self._goodput.stalled_ns += stalled_ns
        self._goodput.recomputation_ns += again_ns
        self._goodput.productive_ns += moving_ns - again_ns
        self._at_ns = until_ns


def _united(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans as ones that do not overlap, in order."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif end > begin:
            found.append((begin, end))
    return found
