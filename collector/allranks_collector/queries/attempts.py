"""The attempts of a run: what each of them did, why it ended, and what of the run's time was worth it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from allranks_collector.attempts import SECOND_NS, AttemptFacts, account
from allranks_collector.health import run_state
from allranks_collector.queries.ranks import read_ranks
from allranks_collector.queries.runs import nobody_seen
from allranks_collector.queries.timeline import read_changes
from allranks_collector.queries.why import why
from allranks_collector.run_ends import run_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import duckdb

    from allranks_collector.queries.figures import LiveStats
    from allranks_collector.queries.ranks import WriterRow
    from allranks_collector.queries.select import RunRef

# An attempt in one of these has not ended.
LIVE = ("running", "stalled")
# The verdict is asked for of the newest attempts: so many, and of so many ranks in all (0.1 ms each).
MAX_VERDICTS, MAX_VERDICT_RANKS = 50, 20_000
_PARTS = ("total", "productive", "init", "stalled", "detection", "restart", "recomputation")
# The way of an attempt is known at so many times; at more of them the fewer attempts there are.
_TIMES, _TIMES_OF_ALL = 2_000, 40_000
# And the newest so many changes of its state.
_CHANGES = 10_000

_LAUNCHES = """
    SELECT attempt, any_value(started_ns), any_value(identity->>'scheduler')
    FROM attempts LEFT JOIN writers USING (run, attempt) WHERE run = $run GROUP BY attempt ORDER BY attempt"""

_MINE = """
    SELECT series, writer, attempt, rank FROM series JOIN writers USING (writer)
    WHERE kind = 'metric' AND writer IN (SELECT unnest($writers::INTEGER[]))"""
_UNCOUNTED = "SEMI JOIN metric_series USING (series) ANTI JOIN counts USING (series)"
# One series for each attempt, that of the lowest rank which has logged about as often as any: what is logged at each
# step, by a rank that was there all the time.
_SEEN_THROUGH = """
    SELECT DISTINCT ON (attempt) attempt, series, writer FROM (
        SELECT *, 2 * count >= max(count) OVER (PARTITION BY attempt) AS is_often
        FROM metric_series JOIN counts USING (series))
    WHERE is_often ORDER BY attempt, rank, count DESC, series"""

_PATHS = """
    WITH chosen AS (SELECT unnest($series::INTEGER[]) AS series),
    spans AS (
        SELECT series, min(time_ns) AS begin, greatest(1, (max(time_ns) - min(time_ns)) // $times) AS width
        FROM points JOIN chosen USING (series) GROUP BY series)
    SELECT series, min(time_ns), arg_min(step, time_ns), max(time_ns), arg_max(step, time_ns)
    FROM points JOIN spans USING (series) GROUP BY series, (time_ns - begin) // width"""


def list_attempts(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    live: LiveStats | None = None,
    last_seen: Callable[[int], int | None] = nobody_seen,
    now_ns: int | None = None,
) -> dict[str, Any]:
    """The attempts of a run, oldest first, and its goodput.

    Args:
        now_ns: the collector's clock; None where no collector runs: nothing is known after the newest event.

    Returns:
        `attempts`: of each when it began and ended (ns, collector's clock), its state, `first_step` and `last_step`,
        `resumed_from` and `recomputed` as in `attempts.Lineage`, and `why` in one line: None where it lives or has
        finished, and of the oldest of very many. `goodput`: seconds, and the `fraction` that was productive, as
        `attempts.account` counts them.
    """
    by_attempt: dict[int, list[WriterRow]] = defaultdict(list)
    for row in read_ranks(cursor, run, None):
        by_attempt[row.attempt].append(row)
    known = [row.newest_ns for rows in by_attempt.values() for row in rows if row.newest_ns is not None]
    now_ns = max(known, default=run.created_ns) if now_ns is None else now_ns
    writers = {row.writer: row for rows in by_attempt.values() for row in rows}
    seen_through = _seen_through(cursor, writers, live)
    paths = _paths(cursor, seen_through, writers)
    stalls = _stalls(cursor, [writers[writer] for _, writer in seen_through.values()], now_ns)
    attempts = [
        _described(attempt, started_ns, by_attempt[attempt], scheduler)
        for attempt, started_ns, scheduler in cursor.execute(_LAUNCHES, {"run": run.run}).fetchall()
    ]
    facts: list[AttemptFacts] = []
    for one in attempts:
        series, writer = seen_through.get(one["attempt"], (0, 0))
        rows = by_attempt[one["attempt"]]
        facts.append(
            AttemptFacts(
                one["attempt"],
                one["began_ns"],
                one["ended_ns"] if rows else one["began_ns"],
                one["state"] == "finished",
                paths.get(series, ()),
                stalls.get(writer, ()),
                max((row.last_step for row in rows if row.last_step is not None), default=None),
            )
        )
    found = account(facts, now_ns)
    verdicts = _verdicts(cursor, run, attempts, by_attempt, last_seen)
    for one, lineage in zip(attempts, found.lineage, strict=True):
        one |= {**asdict(lineage), "why": verdicts.get(lineage.attempt)}
    parts = {f"{part}_s": getattr(found.goodput, f"{part}_ns") / SECOND_NS for part in _PARTS}
    return {"attempts": attempts, "goodput": {"fraction": found.fraction, **parts}}


def _described(attempt: int, started_ns: int, rows: Sequence[WriterRow], scheduler: str | None) -> dict[str, Any]:
    """When an attempt began and ended, and how it does or what became of it."""
    newest = {row.rank: row for row in rows}
    world = max((row.world_size or 0 for row in rows), default=0)
    state = run_state([*(row.state or "running" for row in newest.values()), *["expected"] * (world > len(newest))])
    if state in ("dead", "failed"):
        state = run_end([_how(row) for row in newest.values() if row.state in ("dead", "failed")], scheduler)
    ends = [_end_of(row) for row in rows]
    return {
        "attempt": attempt,
        "began_ns": min((row.began_ns for row in rows), default=started_ns),
        "ended_ns": None if state in LIVE else max(ends, default=None),
        "state": state,
    }


def _how(row: WriterRow) -> str | None:
    """How a rank ended badly, as `run_ends` has it."""
    told = row.told
    exception = told.get("exception")
    if isinstance(exception, dict) and exception.get("type"):
        return f"{exception['type']}: {exception.get('message') or ''}"[:500]
    how = told.get("signal") or told.get("exit_code")
    return str(how) if how is not None else "unknown" if row.state == "failed" else None


def _end_of(row: WriterRow) -> int:
    """When a rank ended; of one that was found gone, perhaps long after, the newest event is nearest to that."""
    ended_ns, newest_ns = row.ended_ns or row.began_ns, row.newest_ns
    return min(ended_ns, newest_ns) if newest_ns is not None and row.told.get("unseen") else ended_ns


def _verdicts(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    attempts: Sequence[Mapping[str, Any]],
    by_attempt: Mapping[int, Sequence[WriterRow]],
    last_seen: Callable[[int], int | None],
) -> dict[int, str]:
    """By attempt, the verdict in one line, of the newest attempts that ended badly."""
    found: dict[int, str] = {}
    room = MAX_VERDICT_RANKS
    for one in reversed(attempts[-MAX_VERDICTS:]):
        attempt = one["attempt"]
        room -= len(by_attempt[attempt])
        if room < 0:
            break
        if one["state"] not in (*LIVE, "finished", "expected"):
            found[attempt] = why(cursor, run, attempt=attempt, last_seen=last_seen, is_brief=True)["verdict"]
    return found


def _seen_through(
    cursor: duckdb.DuckDBPyConnection, writers: Mapping[int, WriterRow], live: LiveStats | None
) -> dict[int, tuple[int, int]]:
    """By attempt, the series through which it is seen, and its writer."""
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE metric_series AS {_MINE}", {"writers": list(writers)})
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE counts AS"
        " SELECT series, count FROM series_stats SEMI JOIN metric_series USING (series)"
    )
    if live is not None and len(live["series"]):
        cursor.register("live_stats", {"series": live["series"], "count": live["count"]})
        cursor.execute(f"INSERT INTO counts SELECT series, count FROM live_stats {_UNCOUNTED}")
        cursor.unregister("live_stats")
    if cursor.execute("SELECT series FROM metric_series ANTI JOIN counts USING (series) LIMIT 1").fetchall():
        cursor.execute(f"INSERT INTO counts SELECT series, count(*) FROM points {_UNCOUNTED} GROUP BY series")
    rows = cursor.execute(_SEEN_THROUGH).fetchall()
    return {attempt: (series, writer) for attempt, series, writer in rows}


def _paths(
    cursor: duckdb.DuckDBPyConnection,
    seen_through: Mapping[int, tuple[int, int]],
    writers: Mapping[int, WriterRow],
) -> dict[int, list[tuple[int, int]]]:
    """By series, when which step was logged, in the collector's clock; thinned to the first and last of each span."""
    if not seen_through:
        return {}
    offsets = {series: writers[writer].offset_ns or 0 for series, writer in seen_through.values()}
    asked = {"series": list(offsets), "times": max(1, min(_TIMES, _TIMES_OF_ALL // len(offsets)))}
    found: dict[int, list[tuple[int, int]]] = {series: [] for series in offsets}
    for series, first_ns, first, last_ns, last in cursor.execute(_PATHS, asked).fetchall():
        found[series].append((first_ns + offsets[series], first))
        if last_ns > first_ns:
            found[series].append((last_ns + offsets[series], last))
    return found


def _stalls(
    cursor: duckdb.DuckDBPyConnection, rows: Sequence[WriterRow], now_ns: int
) -> dict[int, list[tuple[int, int]]]:
    """By writer, from when until when it stood still, in the collector's clock."""
    found: dict[int, list[tuple[int, int]]] = {}
    for writer, changes in read_changes(cursor, rows, _CHANGES).items():
        ends = [change.at_ns for change in changes[1:]] + [now_ns]
        found[writer] = [
            (change.at_ns - round(change.still_s * SECOND_NS), end_ns)
            for change, end_ns in zip(changes, ends, strict=True)
            if change.state == "stalled"
        ]
    return found
