"""What is known of the demo's run while it goes, and how that is shown. Pure: no HTTP, no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from allranks_collector.cli.output import clean, number, state_cell, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    Json = dict[str, Any]

ENDED = frozenset({"finished", "failed", "dead"})
TROUBLED = frozenset({"stalled", "unreachable", "failed", "dead"})
_LOSS, _ACCURACY = "train/loss", "test/accuracy"
_SMOOTHING = 0.5  # of points per second


@dataclass
class View:
    """The run as it was last seen.

    Attributes:
        name: of the run, by which it is found.
        expected: how many ranks there should be.
        troubled: the ranks that were seen stalled, unreachable, failed or dead at any time.
        points_per_s: what the collector stores; None before the second look.
        cause: the rank that brought the run down, in one line; None where none did, or before its end.
    """

    name: str
    expected: int
    run: Json | None = None
    ranks: list[Json] = field(default_factory=list)
    troubled: dict[int, str] = field(default_factory=dict)
    points_per_s: float | None = None
    cause: str | None = None
    _counted: tuple[float, float] | None = None

    def see(self, ranks: Sequence[Json]) -> None:
        """Take in the ranks' states; the first trouble of each is remembered."""
        self.ranks = list(ranks)
        for rank in ranks:
            if rank["state"] in TROUBLED:
                self.troubled.setdefault(rank["rank"], rank["state"])

    def count(self, points: object, now_s: float) -> None:
        """Take in how many points the collector has stored at a monotonic time."""
        if not isinstance(points, (int, float)):
            return
        if self._counted is not None and now_s > self._counted[1]:
            rate = max(points - self._counted[0], 0) / (now_s - self._counted[1])
            before = rate if self.points_per_s is None else self.points_per_s
            self.points_per_s = before + _SMOOTHING * (rate - before)
        self._counted = (float(points), now_s)


def settled(view: View) -> bool:
    """Whether every rank is known to have ended."""
    return len(view.ranks) >= view.expected and all(rank["state"] in ENDED for rank in view.ranks)


def progress_line(view: View) -> str:
    """The run in one line."""
    if view.run is None:
        return "waiting for the first rank"
    summary = view.run.get("summary") or {}
    states = Counter(str(rank["state"]) for rank in view.ranks)
    parts = [
        f"step {view.run.get('last_step')}" if view.run.get("last_step") is not None else "no step yet",
        f"loss {number(summary.get(_LOSS)) or '–'}",
        f"test accuracy {number(summary.get(_ACCURACY)) or '–'}",
        "" if view.points_per_s is None else f"{view.points_per_s:,.0f} points/s",
        "ranks: " + (", ".join(f"{count} {clean(state)}" for state, count in states.items()) or "none yet"),
    ]
    return "   ".join(part for part in parts if part)


def progress_table(view: View) -> RenderableType:
    """The run and its ranks, for a terminal that is redrawn."""
    rows = [(rank["rank"], state_cell(rank["state"]), rank.get("last_step"), rank.get("pid")) for rank in view.ranks]
    line = Text(progress_line(view))
    return Group(line, table(("rank", "state", "step", "pid"), rows, right=("rank", "step", "pid"))) if rows else line
