"""How metrics are charted and summarised: what `define_metric` said, matched to keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import duckdb

# summary word -> the column of figures that it shows. "none" leaves a key out of the summary.
SUMMARIES: Mapping[str, str | None] = {"last": "last", "min": "min", "max": "max", "mean": "mean", "none": None}
DEFAULT_SUMMARY = "last"


@dataclass(frozen=True)
class Definition:
    """One metric's definition; `name` may end in `*`, for all keys that begin so."""

    name: str
    step_metric: str | None
    summary: str | None

    def fits(self, key: str) -> bool:
        """Whether it is meant for this key."""
        if self.name.endswith("*"):
            return key.startswith(self.name[:-1])
        return key == self.name


def definition_of(definitions: Sequence[Definition], key: str) -> Definition:
    """The definition for this key: of just this name, else the longest pattern, else one that says nothing."""
    fitting = [definition for definition in definitions if definition.fits(key)]
    exact = [definition for definition in fitting if definition.name == key]
    candidates = exact or sorted(fitting, key=lambda definition: len(definition.name))
    return candidates[-1] if candidates else Definition(key, None, None)


def summary_column(definition: Definition) -> str | None:
    """Which figure stands for the metric; None where it is to be left out."""
    return SUMMARIES.get(definition.summary or DEFAULT_SUMMARY, DEFAULT_SUMMARY)


def read_definitions(cursor: duckdb.DuckDBPyConnection, runs: Sequence[int]) -> dict[int, list[Definition]]:
    """The definitions of each of these runs; of several with one name the last counts."""
    rows = cursor.execute(
        "SELECT run, name, step_metric, summary FROM definitions WHERE list_contains($runs::INTEGER[], run)"
        " QUALIFY rowid = max(rowid) OVER (PARTITION BY run, name) ORDER BY run, name",
        {"runs": list(runs)},
    ).fetchall()
    found: dict[int, list[Definition]] = {run: [] for run in runs}
    for run, name, step_metric, summary in rows:
        found[run].append(Definition(name, step_metric, summary))
    return found
