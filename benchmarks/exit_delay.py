"""What a program pays for allranks from its start to its end, against the same script without it; what is stored of
what it logged, and what it leaves behind. The programs are those of the scenarios; none of them calls `finish()`.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from tests.support import scenario
from tests.support.waiting import wait_until

from allranks_bus.home import read_endpoint
from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.samples import median_noise

_LIMIT_S = 0.3
_DEADLINE_S = 180.0
_START_S = 60.0
_PAIRS, _PAIRS_OF_RANKS = 5, 15


@dataclass(frozen=True)
class Row:
    """One program.

    Attributes:
        events: how many times it logs `i`.
        is_home_empty: whether it has to start the collector too, and bears that one's start beside it.
        pairs: how often it runs with and without. Ranks that share the processors meet each other by chance, and
            the same program takes some tenths of a second more or less.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    events: int
    is_home_empty: bool = True
    pairs: int = _PAIRS_OF_RANKS


ROWS = (
    Row("one process", "plain.py", (), 1000, pairs=_PAIRS),
    Row("one process, collector up", "plain.py", (), 1000, is_home_empty=False, pairs=_PAIRS),
    Row("Lightning, 2 ranks", "lightning_ddp.py", ("40",), 80),
    Row("Lightning, no main guard", "unguarded.py", ("spawn",), 16),
    Row("spawn, 4 ranks, init in one", "spawned_ranks.py", ("first",), 500),
    Row("spawn, 4 ranks, init in all", "spawned_ranks.py", ("all",), 2000),
    Row("spawn, 4 ranks, collector up", "spawned_ranks.py", ("all",), 2000, is_home_empty=False),
    Row("a run handed to 2 ranks", "handed_over.py", ("torch",), 600),
    Row("8 forked children", "forked_children.py", ("os",), 2402, pairs=_PAIRS),
)


@dataclass
class Outcome:
    """What came of a row.

    Attributes:
        with_s, without_s: from start to end, pair by pair.
        stored: points of `i`, of all its programs together.
        left: the command lines of what was left behind.
    """

    with_s: list[float] = field(default_factory=list[float])
    without_s: list[float] = field(default_factory=list[float])
    logged: int = 0
    stored: int = 0
    left: list[str] = field(default_factory=list[str])

    @property
    def delays_s(self) -> list[float]:
        return [longer - shorter for longer, shorter in zip(self.with_s, self.without_s, strict=True)]


def measure(options: Options) -> Measured:
    """The median difference of pairs that run by turns; and all events, and all processes, of all programs."""
    outcomes = {row.name: _measure(row, options.pick(row.pairs, 1)) for row in ROWS}
    figures = [
        Figure(
            f"exit delay: {name}",
            median(outcome.delays_s),
            "s",
            at_most(_LIMIT_S),
            noise=median_noise(outcome.delays_s),
            note=f"{median(outcome.without_s):.2f} s without",
        )
        for name, outcome in outcomes.items()
    ]
    logged, stored, left = (sum(each) for each in zip(*map(_totals, outcomes.values()), strict=True))
    figures += [
        Figure("events stored of events logged", 100 * stored / logged, "%", at_least(100), note=f"of {logged:,}"),
        Figure("processes left after 6 s", left, "", at_most(0, "but a collector that waits out its idle time")),
    ]
    return Measured(figures, {name: asdict(outcome) for name, outcome in outcomes.items()})


def _totals(outcome: Outcome) -> tuple[int, int, int]:
    return outcome.logged, outcome.stored, len(outcome.left)


def _measure(row: Row, pairs: int) -> Outcome:
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="allranks-bench-") as folder:
        homes = [Path(folder, f"home-{pair if row.is_home_empty else 0}") for pair in range(pairs)]
        try:
            if not row.is_home_empty:
                scenario.run(homes[0], "plain.py")
                wait_until(lambda: read_endpoint(homes[0]), "a collector listens", timeout_s=_START_S)
                outcome.logged += ROWS[0].events
            for pair, home in enumerate(homes):
                for is_without in (False, True) if pair % 2 else (True, False):
                    _run(row, home, outcome, is_without=is_without)
                if row.is_home_empty or pair == pairs - 1:
                    _count(home, outcome)
        finally:
            for home in homes:
                scenario.end_collector(home)
    return outcome


def _run(row: Row, home: Path, outcome: Outcome, *, is_without: bool) -> None:
    ended = scenario.run(home, row.program, *row.arguments, is_without=is_without, deadline_s=_DEADLINE_S)
    if ended.exit_code:
        raise RuntimeError(f"{row.program} ended with {ended.exit_code}: {ended.stderr[-1000:]}")
    if is_without:
        outcome.without_s.append(ended.seconds)
        return
    outcome.with_s.append(ended.seconds)
    outcome.logged += row.events
    outcome.left += ended.left.values()


def _count(home: Path, outcome: Outcome) -> None:
    with scenario.stored(home) as stored:
        outcome.stored += sum(map(len, stored.values("i").values()))
