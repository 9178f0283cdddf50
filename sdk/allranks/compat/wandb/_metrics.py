"""`define_metric`'s words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from allranks._run import SUMMARIES
from allranks.compat.wandb._left_out import say_left_out

_BEST_BY_GOAL = {"maximize": "max", "minimize": "min"}


@dataclass(frozen=True)
class Metric:
    """What `define_metric` returns, and takes as `step_metric`."""

    name: str
    step_metric: str | None = None
    summary: str | None = None


def summary_word(name: str, summary: str | None, goal: str | None) -> str | None:
    """Which of the figures that allranks keeps of each metric stands in the run's summary.

    Args:
        summary: wandb's form: words with commas between.
        goal: `maximize` or `minimize`, which say what `best` is.
    """
    words = [word.strip().lower() for word in (summary or "").split(",") if word.strip()]
    meant = [_BEST_BY_GOAL.get(str(goal), "min") if word == "best" else word for word in words]
    known = [word for word in meant if word in SUMMARIES]
    if words and not known:
        say_left_out(f"define_metric({name!r}, summary={summary!r})", f"a summary is one of {', '.join(SUMMARIES)}")
    return known[0] if known else None


def metric_name(metric: Any) -> str | None:
    """The name of a metric that is given by it, or as what `define_metric` returned."""
    return None if metric is None else str(getattr(metric, "name", metric))
