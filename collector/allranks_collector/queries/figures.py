"""The figures of series (count, last, min, max …), from wherever they are: memory, `series_stats`, or the points.

A running run's come from the ingest's memory (`live`),
        an ended one's from the table. Where neither knows a series (a
file that a killed collector left, read without a collector) they are computed from its points, once a question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from allranks_collector.stats import COLUMNS

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

# The columns of SeriesStats.columns().
LiveStats = Mapping[str, "NDArray[Any]"]

# A NaN may be stored as NULL (DuckDB reads those of numpy so): it is a value all the same, and may be the last one.
_COMPUTED = """
    SELECT series, count(*) AS count, arg_max_null(value, points.rowid) AS last,
        arg_max(step, points.rowid) AS last_step, arg_max(time_ns, points.rowid) AS last_ns, min(v) AS min,
        max(v) AS max, coalesce(sum(v), 0) AS sum,
        count(*) - count(v) AS nonfinite
    FROM (SELECT rowid, *, CASE WHEN isfinite(value) THEN value END AS v FROM points
          WHERE series IN (SELECT unnest($series::INTEGER[]))) AS points
    GROUP BY series"""


def computed_stats(cursor: duckdb.DuckDBPyConnection, series: Sequence[int]) -> dict[str, NDArray[Any]]:
    """The figures of these series as their stored points have them; columns as in `SeriesStats.columns`.

    For `SeriesStats.seed` when a collector starts. It reads all points of the runs: seconds for a billion.
    """
    rows = cursor.execute(_COMPUTED, {"series": list(series)}).fetchnumpy()
    return cast("dict[str, np.ndarray]", {name: rows[name] for name in COLUMNS})


def load_figures(cursor: duckdb.DuckDBPyConnection, runs: Sequence[int], live: LiveStats | None) -> None:
    """Make the temporary table `figures`: one row per series of these runs, with its run, attempt, rank, key, kind.

    The figures are NULL where there are none (a series of objects), or none that is finite.
    """
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE known AS SELECT * FROM series_stats WHERE series IN"
        " (SELECT series FROM series JOIN writers USING (writer) WHERE list_contains($runs::INTEGER[], run))",
        {"runs": list(runs)},
    )
    if live is not None and len(live["series"]):
        cursor.register("live_stats", {name: live[name] for name in COLUMNS})
        # Between the end of a run and the clearing of its memory both know it: the same figures.
        cursor.execute("INSERT INTO known SELECT * FROM live_stats ANTI JOIN known USING (series)")
        cursor.unregister("live_stats")
    unknown = cursor.execute(
        "SELECT series FROM series JOIN writers USING (writer) ANTI JOIN known USING (series)"
        " WHERE list_contains($runs::INTEGER[], run) AND kind <> 'object'",
        {"runs": list(runs)},
    ).fetchall()
    if unknown:
        cursor.execute(f"INSERT INTO known {_COMPUTED}", {"series": [series for (series,) in unknown]})
    cursor.execute(
        """CREATE OR REPLACE TEMP TABLE figures AS
        SELECT run, attempt, rank, writer, key, kind, count, last_step, last_ns, sum, nonfinite,
            CASE WHEN isfinite(last) THEN last END AS last,
            CASE WHEN isfinite(min) THEN min END AS min,
            CASE WHEN isfinite(max) THEN max END AS max
        FROM series JOIN writers USING (writer) LEFT JOIN known USING (series)
        WHERE list_contains($runs::INTEGER[], run)
        QUALIFY attempt = max(attempt) OVER (PARTITION BY run, key, kind)""",
        {"runs": list(runs)},
    )


# Over the writers of a rank, then over the ranks, of the newest attempt that has the key: as the curves.
BY_KEY = """
    SELECT run, key, kind, count(*)::INTEGER AS ranks, sum(count)::BIGINT AS count, max(last_step) AS last_step,
        avg(last) AS last, min(min) AS min, max(max) AS max, avg(mean) AS mean
    FROM (
        SELECT run, key, kind, rank, sum(count) AS count, max(last_step) AS last_step,
            arg_max_null(last, last_ns) AS last, min(min) AS min, max(max) AS max,
            sum(sum) / nullif(sum(count - nonfinite), 0) AS mean
        FROM figures GROUP BY run, key, kind, rank
    ) GROUP BY run, key, kind ORDER BY run, key, kind"""
