"""The ranks of a run: who they are, where they run, how they do, and what ended them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from allranks_collector.health import ENDED
from allranks_collector.queries.claims import rivals, told_claims
from allranks_collector.queries.runs import nobody_seen, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from allranks_collector.queries.select import RunRef

# Of those that have not come; in a world of more, the lowest are listed.
MAX_EXPECTED = 16_384
# What a state's detail may say of an end.
_DETAILS = ("exit_code", "signal", "reason", "exception")

_WRITERS = """
    WITH mine AS (SELECT * FROM writers WHERE run = $run AND attempt = coalesce($attempt, attempt)
        AND role <> 'console'),
    stated AS (
        SELECT writer, state, since_ns, detail FROM states WHERE writer IN (SELECT writer FROM mine)
        QUALIFY states.rowid = max(states.rowid) OVER (PARTITION BY writer)),
    timed AS (
        SELECT writer, offset_ns FROM clocks WHERE writer IN (SELECT writer FROM mine)
        QUALIFY clocks.rowid = max(clocks.rowid) OVER (PARTITION BY writer))
    SELECT writer, rank, local_rank, world_size, role, host, pid, opened_ns, state, since_ns, detail,
        next_seq, last_step, last_ns, dropped,
        -- Who ended before its clock was known goes by the clock of the others on its host.
        coalesce(offset_ns, quantile_disc(offset_ns, 0.5) OVER (PARTITION BY host)) AS offset_ns, attempt
    FROM mine LEFT JOIN stated USING (writer) LEFT JOIN positions USING (writer) LEFT JOIN timed USING (writer)
    -- Who is alone may be the program that started the ranks: not one of them, whoever was heard first.
    ORDER BY rank, attempt, world_size > 1, writer"""


@dataclass(frozen=True)
class WriterRow:
    """A writer of an attempt as the database knows it; its columns are those of the tables."""

    writer: int
    rank: int
    local_rank: int | None
    world_size: int | None
    role: str
    host: str
    pid: int
    opened_ns: int
    state: str | None
    since_ns: int | None
    detail: str | None
    events: int | None
    last_step: int | None
    last_ns: int | None
    dropped: int | None
    offset_ns: int | None
    attempt: int

    @property
    def began_ns(self) -> int:
        """When it came, in the collector's clock."""
        return self.opened_ns + (self.offset_ns or 0)

    @property
    def ended_ns(self) -> int | None:
        """Since when its state is what it is, in the collector's clock. The record that closes it has its own."""
        is_told = self.since_ns is not None and self.since_ns == self.last_ns
        return self.since_ns + (self.offset_ns or 0) if self.since_ns is not None and is_told else self.since_ns

    @property
    def newest_ns(self) -> int | None:
        """The time of its newest event, in the collector's clock."""
        return None if self.last_ns is None else self.last_ns + (self.offset_ns or 0)

    @property
    def told(self) -> dict[str, Any]:
        """What is known of its state."""
        return json.loads(self.detail) if self.detail else {}


def read_writers(cursor: duckdb.DuckDBPyConnection, run: RunRef, attempt: int | None) -> list[WriterRow]:
    """The ranks and their children in an attempt (None: in all), by rank; of its several writers the newest last."""
    rows = cursor.execute(_WRITERS, {"run": run.run, "attempt": attempt}).fetchall()
    return [WriterRow(*row) for row in rows]


def read_ranks(cursor: duckdb.DuckDBPyConnection, run: RunRef, attempt: int | None) -> list[WriterRow]:
    """As `read_writers`, the ranks alone: no children, and nobody who claims a rank that another had first."""
    apart = rivals(cursor, [run.run])
    return [row for row in read_writers(cursor, run, attempt) if row.role != "child" and row.writer not in apart]


def newest_attempt(cursor: duckdb.DuckDBPyConnection, run: RunRef) -> int | None:
    """The newest attempt of which anybody has come."""
    row = cursor.execute("SELECT max(attempt) FROM writers WHERE run = ?", [run.run]).fetchone()
    return row[0] if row else None


def list_ranks(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    attempt: int | None = None,
    last_seen: Callable[[int], int | None] = nobody_seen,
) -> list[dict[str, Any]]:
    """The ranks of an attempt (None: the newest), in order. Ranks that have not come yet are `expected`.

    Of those at most MAX_EXPECTED are listed. A rank's figures are its own writer's; its forked children are under
    `children`, in the same form but shorter, and under `rivals` other processes that claim to be it.
    """
    if attempt is None:
        attempt = newest_attempt(cursor, run)
    ranks: dict[int, dict[str, Any]] = {}
    children: dict[int, list[dict[str, Any]]] = {}
    others: dict[int, list[dict[str, Any]]] = {}
    known_rivals = rivals(cursor, [run.run])
    world = 0
    for row in read_writers(cursor, run, attempt):
        told = row.told
        seen_ns = [ns for ns in (row.newest_ns, last_seen(row.writer)) if ns is not None]
        shared = {
            "host": row.host,
            "pid": row.pid,
            "state": row.state or "running",
            "last_step": row.last_step,
            "last_seen": seconds(max(seen_ns, default=None)),
            "started_at": seconds(row.began_ns),
            "ended_at": seconds(row.ended_ns) if row.state in ENDED else None,
            **{name: told.get(name) for name in _DETAILS},
            "dropped": row.dropped or 0,
            "events": row.events or 0,
        }
        if row.role == "child":
            children.setdefault(row.rank, []).append(shared)
        elif row.writer in known_rivals:
            others.setdefault(row.rank, []).append(shared)
        else:
            ranks[row.rank] = {"rank": row.rank, "attempt": attempt, "local_rank": row.local_rank, **shared}
            world = max(world, row.world_size or 0)
    missing = (rank for rank in range(world) if rank not in ranks)
    for rank in {*islice(missing, MAX_EXPECTED), *(children.keys() - ranks)}:
        ranks[rank] = _expected(rank, attempt)
    return [
        {**ranks[rank], "children": children.get(rank, []), "rivals": others.get(rank, [])} for rank in sorted(ranks)
    ]


def list_claims(cursor: duckdb.DuckDBPyConnection, run: RunRef, *, attempt: int | None = None) -> list[str]:
    """What is odd about who the ranks of an attempt (None: the newest) say they are, one sentence each."""
    return told_claims(cursor, run, newest_attempt(cursor, run) if attempt is None else attempt)


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
