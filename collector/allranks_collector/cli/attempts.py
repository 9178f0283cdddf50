"""`attempts`: what each life of a run did, why it ended, and how much of the time was worth it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from allranks_collector.cli.common import Http, Json, RunName
from allranks_collector.cli.output import NOTHING, age, cell, duration, show, state_cell, table
from allranks_collector.cli.reader import open_reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

_COLUMNS = ("attempt", "state", "began", "lasted", "steps", "resumed from", "recomputed", "why")
# In the order in which a run goes through them.
_LOST = (
    ("init_s", "to the first steps"),
    ("stalled_s", "standing still"),
    ("detection_s", "until failures were known"),
    ("restart_s", "until the next attempt began"),
    ("recomputation_s", "on steps done before"),
)


def attempts(run: RunName, http: Http = None, json_: Json = False) -> None:
    """Show the attempts of a run (restarts, requeues): where each went on, what it did again, and the run's goodput.

    Goodput is the part of the time that went into steps which no attempt had reached before.
    """
    show(open_reader(http, os.environ).attempts(run), view, json_=json_)


def view(found: Mapping[str, Any]) -> list[RenderableType]:
    """The answer for people."""
    now = time.time()
    rows = [
        (
            one["attempt"],
            state_cell(one["state"]),
            age(one["began_ns"] / 1e9, now),
            _span(((one["ended_ns"] or now * 1e9) - one["began_ns"]) / 1e9),
            _steps(one),
            one["resumed_from"],
            one["recomputed"] or None,
            one["why"],
        )
        for one in found["attempts"]
    ]
    return [
        table(_COLUMNS, rows, right=("attempt", "began", "lasted", "steps", "resumed from", "recomputed")),
        cell(_goodput(found["goodput"])),
    ]


def _steps(one: Mapping[str, Any]) -> str:
    first, last = one["first_step"], one["last_step"]
    return NOTHING if last is None else f"{NOTHING if first is None else first}–{last}"


def _goodput(goodput: Mapping[str, Any]) -> str:
    total = _span(goodput["total_s"])
    if goodput["fraction"] is None:
        return f"goodput: no step yet in {total}"
    lost = ", ".join(
        f"{_span(goodput[part])} {words}" for part, words in _LOST if goodput[part] > 0.001 * goodput["total_s"]
    )
    return f"goodput {100 * goodput['fraction']:.1f} % of {total}; lost: {lost or 'next to nothing'}"


def _span(seconds: float) -> str:
    return f"{max(seconds, 0.0):.1f} s" if seconds < 10 else duration(seconds)
