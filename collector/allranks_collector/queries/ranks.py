"""The ranks of a run: who they are, where they run, how they do, and what ended them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from allranks_collector.health import ENDED
from allranks_collector.queries.runs import nobody_seen, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from allranks_collector.queries.select import RunRef

# What a state's detail may say of an end.
_DETAILS = ("exit_code", "signal", "reason", "exception")

_WRITERS = """
    WITH mine AS (SELECT * FROM writers WHERE run = $run AND attempt = $attempt AND role <> 'console'),
    stated AS (
        SELECT writer, state, since_ns, detail FROM states WHERE writer IN (SELECT writer FROM mine)
        QUALIFY states.rowid = max(states.rowid) OVER (PARTITION BY writer))
    SELECT writer, rank, local_rank, world_size, role, host, pid, opened_ns, state, since_ns, detail,
        next_seq, last_step, last_ns, dropped
    FROM mine LEFT JOIN stated USING (writer) LEFT JOIN positions USING (writer) ORDER BY rank, writer"""


def list_ranks(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    attempt: int | None = None,
    last_seen: Callable[[int], int | None] = nobody_seen,
) -> list[dict[str, Any]]:
    """The ranks of an attempt (None: the newest), in order. Ranks that have not come yet are `expected`.

    A rank's figures are its own writer's; its forked children are under `children`, in the same form but shorter.
    """
    if attempt is None:
        row = cursor.execute("SELECT max(attempt) FROM writers WHERE run = ?", [run.run]).fetchone()
        attempt = row[0] if row else None
    rows = cursor.execute(_WRITERS, {"run": run.run, "attempt": attempt}).fetchall()
    ranks: dict[int, dict[str, Any]] = {}
    children: dict[int, list[dict[str, Any]]] = {}
    world = 0
    for writer, rank, local, size, role, host, pid, opened, state, since, detail, events, step, last, dropped in rows:
        shared = {
            "host": host,
            "pid": pid,
            "state": state or "running",
            "last_step": step,
            "last_seen": seconds(max((t for t in (last, last_seen(writer)) if t is not None), default=None)),
            "started_at": seconds(opened),
            "ended_at": seconds(since) if state in ENDED else None,
            **{name: (json.loads(detail) if detail else {}).get(name) for name in _DETAILS},
            "dropped": dropped or 0,
            "events": events or 0,
        }
        if role == "child":
            children.setdefault(rank, []).append(shared)
        else:  # of several writers the newest comes last, and counts
            ranks[rank] = {"rank": rank, "attempt": attempt, "local_rank": local, **shared}
            world = max(world, size or 0)
    for rank in sorted({*range(world), *children} - set(ranks)):
        ranks[rank] = _expected(rank, attempt)
    return [{**ranks[rank], "children": children.get(rank, [])} for rank in sorted(ranks)]


def _expected(rank: int, attempt: int | None) -> dict[str, Any]:
    return {
        "rank": rank,
        "attempt": attempt,
        "local_rank": None,
        "host": None,
        "pid": None,
        "state": "expected",
        **dict.fromkeys(("last_step", "last_seen", "started_at", "ended_at", *_DETAILS)),
        "dropped": 0,
        "events": 0,
    }
