"""Events, and values that are not numbers: rows as they were stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from allranks_collector.queries.runs import seconds
from allranks_collector.queries.select import BadQuery

if TYPE_CHECKING:
    from collections.abc import Collection

    import duckdb

    from allranks_collector.queries.select import RunRef

MAX_ROWS = 10_000


def list_events(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    after: int | None = None,
    limit: int = 1000,
    kind: str | None = None,
) -> list[dict[str, Any]]:
    """The run's events in order: the first `limit` after number `after`, or, with after=None, the newest `limit`."""
    _check_limit(limit)
    newest = after is None
    rows = cursor.execute(
        "SELECT event, time_ns, kind, rank, attempt, host, pid, body FROM events LEFT JOIN writers USING (writer)"
        " WHERE events.run = $run AND event > $after AND ($kind IS NULL OR kind = $kind)"
        f" ORDER BY event {'DESC' if newest else ''} LIMIT $limit",
        {"run": run.run, "after": -1 if after is None else after, "kind": kind, "limit": limit},
    ).fetchall()
    return [
        {
            "event": event,
            "time": seconds(time_ns),
            "kind": kind,
            "rank": rank,
            "attempt": attempt,
            "host": host,
            "pid": pid,
            "body": json.loads(body) if body else None,
        }
        for event, time_ns, kind, rank, attempt, host, pid, body in (reversed(rows) if newest else rows)
    ]


def list_objects(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    key: str | None = None,
    ranks: Collection[int] | None = None,
    step_min: int | None = None,
    step_max: int | None = None,
    limit: int = 1000,
) -> list[dict[str, Any]]:
    """Text, histograms and other values that are not numbers, by key, rank, attempt and step: the newest `limit`."""
    _check_limit(limit)
    rows = cursor.execute(
        "SELECT * FROM (SELECT key, rank, attempt, step, time_ns, body FROM objects JOIN series USING (series)"
        " JOIN writers USING (writer) WHERE run = $run AND ($key IS NULL OR key = $key)"
        " AND ($ranks IS NULL OR list_contains($ranks::INTEGER[], rank))"
        " AND ($low IS NULL OR step >= $low) AND ($high IS NULL OR step <= $high)"
        " ORDER BY time_ns DESC LIMIT $limit) ORDER BY key, attempt, rank, step, time_ns",
        {
            "run": run.run,
            "key": key,
            "ranks": None if ranks is None else list(ranks),
            "low": step_min,
            "high": step_max,
            "limit": limit,
        },
    ).fetchall()
    return [
        {
            "key": key,
            "rank": rank,
            "attempt": attempt,
            "step": step,
            "time": seconds(time_ns),
            "value": json.loads(body),
        }
        for key, rank, attempt, step, time_ns, body in rows
    ]


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_ROWS:
        raise BadQuery("limit", limit, f"1 to {MAX_ROWS}")
