"""Whole tables of a run as files: JSON lines, CSV or Parquet, written by DuckDB itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from allranks_collector.queries.clocks import in_one_clock, wrong_clocks
from allranks_collector.queries.ranks import list_ranks
from allranks_collector.queries.runs import get_run
from allranks_collector.queries.select import BadQuery

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import duckdb

    from allranks_collector.queries.figures import LiveStats
    from allranks_collector.queries.select import RunRef

FORMATS: Mapping[str, str] = {
    "jsonl": "FORMAT json, ARRAY false",
    "csv": "FORMAT csv, HEADER",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
MEDIA_TYPES: Mapping[str, str] = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}

# Tables that may be large go from the database to the file without passing through Python.
_POINTS = (
    "WITH told AS (SELECT key, rank, attempt, step, time_ns, value, writer FROM points JOIN series USING (series)"
    " JOIN writers USING (writer) WHERE run = {{run}} AND kind = '{kind}')"
    " SELECT key, rank, attempt, step, time_ns / 1e9 AS time, {{value}} AS value FROM {{told}}"
)
_LARGE: Mapping[str, str] = {
    "metrics": _POINTS.format(kind="metric") + " ORDER BY key, attempt, rank, step, time_ns",
    "system": _POINTS.format(kind="system") + " ORDER BY key, attempt, rank, time_ns",
    "events": "SELECT event, time_ns / 1e9 AS time, kind, rank, attempt, host, pid, body::JSON AS body"
    " FROM events LEFT JOIN writers USING (writer) WHERE events.run = {run} ORDER BY event",
}
# JSON and CSV have no word for NaN and infinities that all readers take.
_VALUES = {"parquet": "coalesce(value, 'nan'::DOUBLE)"}
_FINITE_VALUE = "CASE WHEN isfinite(value) THEN value END"

# Small tables are the answers of other queries, with these columns.
_ENTRY = {"key": "VARCHAR", "value": "JSON"}
_RANK = {
    "rank": "INTEGER",
    "attempt": "INTEGER",
    "local_rank": "INTEGER",
    "host": "VARCHAR",
    "pid": "BIGINT",
    "state": "VARCHAR",
    "last_step": "BIGINT",
    "last_seen": "DOUBLE",
    "started_at": "DOUBLE",
    "ended_at": "DOUBLE",
    "exit_code": "INTEGER",
    "signal": "VARCHAR",
    "reason": "VARCHAR",
    "exception": "JSON",
    "dropped": "BIGINT",
    "events": "BIGINT",
    "children": "JSON",
}
_SMALL: Mapping[str, Mapping[str, str]] = {"ranks": _RANK, "config": _ENTRY, "summary": _ENTRY}

WHAT = (*_LARGE, *_SMALL)


def export(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    what: str,
    format: str,  # noqa: A002
    path: Path,
    *,
    live: LiveStats | None = None,
) -> None:
    """Write one table of the run to a new file at `path`.

    Args:
        what: one of WHAT. metrics and system: a row of key, rank, attempt, step, time, value for each point; events
            and ranks: as the other answers have them; config and summary: a row of key and value (JSON) for each.
        format: jsonl, csv or parquet. Values that are not finite are null in the first two.
        path: the file to write.
        live: as for `list_runs`.

    Raises:
        BadQuery: `what` or `format` is none of these.
    """
    if what not in WHAT:
        raise BadQuery("what", what, "one of " + ", ".join(WHAT))
    if format not in FORMATS:
        raise BadQuery("format", format, "one of " + ", ".join(FORMATS))
    if what in _LARGE:
        told = in_one_clock("told", wrong_clocks(cursor, run))
        query = _LARGE[what].format(run=run.run, value=_VALUES.get(format, _FINITE_VALUE), told=told)
    else:
        structure = json.dumps([_SMALL[what]])
        cursor.execute(
            "CREATE OR REPLACE TEMP TABLE exported AS"
            " SELECT unnest(from_json($rows::JSON, $structure), recursive := true)",
            {"rows": json.dumps(_small_rows(cursor, run, what, live)), "structure": structure},
        )
        query = "FROM exported"
    target = str(path).replace("'", "''")
    cursor.execute(f"COPY ({query}) TO '{target}' ({FORMATS[format]})")


def _small_rows(
    cursor: duckdb.DuckDBPyConnection, run: RunRef, what: str, live: LiveStats | None
) -> list[dict[str, Any]]:
    if what == "ranks":
        return list_ranks(cursor, run)
    entries: dict[str, Any] = get_run(cursor, run, live=live)[what]
    return [{"key": key, "value": value} for key, value in entries.items()]
