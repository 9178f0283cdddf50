"""The keys of a run: which there are, of what kind, with their figures over all ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allranks_collector.queries.definitions import DEFAULT_SUMMARY, definition_of, read_definitions
from allranks_collector.queries.figures import BY_KEY, LiveStats, load_figures

if TYPE_CHECKING:
    import duckdb

    from allranks_collector.queries.select import RunRef


def list_keys(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, *, live: LiveStats | None = None
) -> list[dict[str, Any]]:
    """The keys in alphabetical order, of the newest attempt that has each; `ranks` is how many ranks have it.

    `last` is the mean of the ranks' last values, `min` and `max` are over all points of all ranks, `count` counts
    points. A key of kind object has a count and a last step only.
    """
    load_figures(cursor, [run.run], live)
    definitions = read_definitions(cursor, [run.run])[run.run]
    objects = {
        key: (count, last_step)
        for key, count, last_step in cursor.execute(
            "SELECT key, count(*), max(step) FROM objects JOIN series USING (series) JOIN writers USING (writer)"
            " WHERE run = ? GROUP BY key",
            [run.run],
        ).fetchall()
    }
    keys: list[dict[str, Any]] = []
    for key, kind, ranks, count, last_step, last, low, high in cursor.execute(
        f"SELECT key, kind, ranks, count, last_step, last, min, max FROM ({BY_KEY})"
    ).fetchall():
        if kind == "object":
            count, last_step = objects.get(key, (0, None))
        definition = definition_of(definitions, key)
        keys.append(
            {
                "key": key,
                "kind": kind,
                "ranks": ranks,
                "count": count or 0,
                "last_step": last_step,
                "last": last,
                "min": low,
                "max": high,
                "step_metric": definition.step_metric,
                "summary": definition.summary or DEFAULT_SUMMARY,
            }
        )
    return keys
