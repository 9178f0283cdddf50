"""Runs: what they are, how they do, and what they are known by."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from allranks_collector.health import ENDED, run_state
from allranks_collector.queries.claims import RIVALS
from allranks_collector.queries.definitions import definition_of, read_definitions, summary_column
from allranks_collector.queries.figures import BY_KEY, LiveStats, load_figures
from allranks_collector.queries.select import BadQuery, RunRef
from allranks_collector.run_ends import run_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import duckdb

MAX_RUNS = 1000
_FIGURES = ("last", "min", "max", "mean")

# The newest writer of each rank in the newest attempt, with its last state: one row per (run, rank).
_RANKS_NOW = f"""
    newest AS (SELECT run, max(attempt) AS attempt FROM writers WHERE run IN (SELECT run FROM asked) GROUP BY run),
    now AS (
        SELECT run, attempt, rank, writer, world_size, last_step, last_ns, identity->>'scheduler' AS scheduler
        FROM writers
        SEMI JOIN newest USING (run, attempt) LEFT JOIN positions USING (writer) WHERE role = 'rank'
            AND writer NOT IN ({RIVALS})
        -- Of a rank's writers the newest; one that is alone may be the program that started the ranks.
        QUALIFY row_number() OVER (PARTITION BY run, rank ORDER BY world_size > 1 DESC, writer DESC) = 1),
    stated AS (
        SELECT writer, state, since_ns, CASE WHEN state IN ('dead', 'failed') THEN coalesce(
            (detail->>'$.exception.type') || ': ' || coalesce(left(detail->>'$.exception.message', 500), ''),
            detail->>'signal', detail->>'exit_code',
            CASE state WHEN 'failed' THEN 'unknown' END) END AS how
        FROM states WHERE writer IN (SELECT writer FROM now)
        QUALIFY states.rowid = max(states.rowid) OVER (PARTITION BY writer))"""

_STATES = f"""
    WITH asked AS (SELECT unnest($runs::INTEGER[]) AS run), {_RANKS_NOW}
    SELECT run, max(attempt), max(world_size), count(*), list(state), list(writer),
        max(last_step), max(last_ns), max(since_ns), list(how) FILTER (state IN ('dead', 'failed')),
        any_value(scheduler)
    FROM now LEFT JOIN stated USING (writer) GROUP BY run"""


def nobody_seen(writer: int) -> int | None:  # noqa: ARG001
    """What is known of live writers where no collector runs: nothing beyond the database."""
    return None


def list_runs(
    cursor: duckdb.DuckDBPyConnection,
    *,
    project: str | None = None,
    group: str | None = None,
    state: str | None = None,
    limit: int = 100,
    offset: int = 0,
    live: LiveStats | None = None,
    last_seen: Callable[[int], int | None] = nobody_seen,
) -> dict[str, Any]:
    """The runs, newest first, as `{"runs": [...], "total": how many there are without limit and offset}`.

    Args:
        project: only this project's; None for all.
        group: only this group's.
        state: only those in this state, one of those that `health.run_state` and `run_ends.run_end` give.
        limit: at most so many, 1 to MAX_RUNS.
        offset: leave so many out at the beginning.
        live: the figures of the running runs' series; None to compute them from the points.
        last_seen: when a writer was last heard, in ns, newer than the database knows; None where it is not live.
    """
    if not 1 <= limit <= MAX_RUNS:
        raise BadQuery("limit", limit, f"1 to {MAX_RUNS}")
    if offset < 0:
        raise BadQuery("offset", offset, "0 or more")
    rows = cursor.execute(
        "SELECT run FROM runs WHERE ($project IS NULL OR project = $project)"
        " AND ($group IS NULL OR group_name = $group) ORDER BY created_ns DESC, run DESC",
        {"project": project, "group": group},
    ).fetchall()
    runs = [int(run) for (run,) in rows]
    if state is not None:
        states = _conditions(cursor, runs, last_seen)
        runs = [run for run in runs if states[run]["state"] == state]
    page = runs[offset : offset + limit]
    return {"runs": _described(cursor, page, live, last_seen), "total": len(runs)}


def get_run(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    live: LiveStats | None = None,
    last_seen: Callable[[int], int | None] = nobody_seen,
) -> dict[str, Any]:
    """One run as in the list, and its attempts and definitions."""
    (described,) = _described(cursor, [run.run], live, last_seen)
    attempts = cursor.execute(
        "SELECT attempt, started_ns, launch FROM attempts WHERE run = ? ORDER BY attempt", [run.run]
    ).fetchall()
    described["attempts"] = [
        {"attempt": attempt, "started_at": seconds(started), "launch": launch}
        for attempt, started, launch in attempts
    ]
    described["definitions"] = [
        {"name": definition.name, "step_metric": definition.step_metric, "summary": definition.summary}
        for definition in read_definitions(cursor, [run.run])[run.run]
    ]
    return described


def state_of(cursor: duckdb.DuckDBPyConnection, run: RunRef) -> str:
    """The run's state, from its newest attempt's ranks."""
    return str(_conditions(cursor, [run.run], nobody_seen)[run.run]["state"])


def seconds(time_ns: int | None) -> float | None:
    """Unix seconds, as all times in answers are."""
    return None if time_ns is None else time_ns / 1e9


def _conditions(
    cursor: duckdb.DuckDBPyConnection, runs: Sequence[int], last_seen: Callable[[int], int | None]
) -> dict[int, dict[str, Any]]:
    """How each run does: state, attempt, ranks and times, from its newest attempt."""
    nothing: dict[str, Any] = {
        "state": run_state(()),
        "world_size": None,
        "attempt": None,
        "ranks_seen": 0,
        "last_seen": None,
        "last_step": None,
        "ended_at": None,
    }
    found = dict.fromkeys(runs, nothing)
    for run, attempt, world, seen, states, writers, last_step, last_ns, since, ends, scheduler in cursor.execute(
        _STATES, {"runs": list(runs)}
    ).fetchall():
        missing = ["expected"] * ((world or 0) > seen)
        state = run_state([*states, *missing])
        ended = state in ENDED
        if state in ("dead", "failed"):
            state = run_end(ends or (), scheduler)
        heard = [] if ended else [last_seen(writer) for writer in writers]
        found[run] = {
            "state": state,
            "world_size": world,
            "attempt": attempt,
            "ranks_seen": seen,
            "last_seen": seconds(max((time for time in (last_ns, *heard) if time is not None), default=None)),
            "last_step": last_step,
            "ended_at": seconds(since) if ended else None,
        }
    return found


def _described(
    cursor: duckdb.DuckDBPyConnection,
    runs: Sequence[int],
    live: LiveStats | None,
    last_seen: Callable[[int], int | None],
) -> list[dict[str, Any]]:
    if not runs:
        return []
    conditions = _conditions(cursor, runs, last_seen)
    config, summary = (_entries(cursor, table, runs) for table in ("config", "summary"))
    computed = _summaries(cursor, runs, live)
    rows = cursor.execute(
        "SELECT run, id, project, group_name, name, notes, tags, created_ns FROM runs"
        " WHERE list_contains($runs::INTEGER[], run)",
        {"runs": list(runs)},
    ).fetchall()
    described: dict[int, dict[str, Any]] = {}
    for run, id_, project, group, name, notes, tags, created_ns in rows:
        described[run] = {
            "id": id_,
            "project": project,
            "group": group,
            "name": name,
            "notes": notes,
            "tags": json.loads(tags or "[]"),
            "created_at": seconds(created_ns),
            **conditions[run],
            "config": config[run],
            "summary": computed[run] | summary[run],
        }
    return [described[run] for run in runs if run in described]


def _entries(cursor: duckdb.DuckDBPyConnection, table: str, runs: Sequence[int]) -> dict[int, dict[str, Any]]:
    """What `config` or `summary` says of each run: of several entries with one key the last counts."""
    rows = cursor.execute(
        f"SELECT run, key, value FROM {table} WHERE list_contains($runs::INTEGER[], run)"
        " QUALIFY rowid = max(rowid) OVER (PARTITION BY run, key) ORDER BY run, key",
        {"runs": list(runs)},
    ).fetchall()
    found: dict[int, dict[str, Any]] = {run: {} for run in runs}
    for run, key, value in rows:
        found[run][key] = json.loads(value)
    return found


def _summaries(
    cursor: duckdb.DuckDBPyConnection, runs: Sequence[int], live: LiveStats | None
) -> dict[int, dict[str, float | None]]:
    """Each run's metrics as one number each, by their definitions."""
    load_figures(cursor, runs, live)
    definitions = read_definitions(cursor, runs)
    found: dict[int, dict[str, float | None]] = {run: {} for run in runs}
    for run, key, *figures in cursor.execute(
        f"SELECT run, key, {', '.join(_FIGURES)} FROM ({BY_KEY}) WHERE kind = 'metric' ORDER BY run, key"
    ).fetchall():
        column = summary_column(definition_of(definitions[run], key))
        if column is not None:
            found[run][key] = figures[_FIGURES.index(column)]
    return found
