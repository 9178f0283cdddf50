"""The states of a run's ranks over time, for a picture of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allranks_collector.health import ENDED, State
from allranks_collector.queries.ranks import newest_attempt, read_ranks
from allranks_collector.timelines import MAX_SPANS, spans_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from allranks_collector.queries.ranks import WriterRow
    from allranks_collector.queries.select import RunRef

STATES = tuple(state.value for state in State)
# Of a rank that has had more, the newest changes of state are looked at.
MAX_CHANGES = 256
# Rows of one answer, and spans in all: of many attempts the newest are shown, and of many ranks fewer spans each.
MAX_ROWS = 32_768
MAX_SPANS_OF_ALL = 8 * MAX_ROWS
# After the end of all ranks so much is shown of how they ended: a part of the time, and at the least some.
_MARGIN, _MARGIN_NS = 0.03, 10**9

# Slices of lists, and not `row_number() <= $most`, which DuckDB 2.0 dies of beside a rowid.
_CHANGES = """
    SELECT writer, list(since_ns ORDER BY states.rowid)[-$most:], list(state ORDER BY states.rowid)[-$most:],
        list(try_cast(detail->>'still_s' AS DOUBLE) ORDER BY states.rowid)[-$most:]
    FROM states WHERE writer IN (SELECT unnest($writers::INTEGER[])) GROUP BY writer"""


@dataclass(frozen=True)
class Change:
    """A state, and since when it is that; `still_s`: how long the rank had stood still by then."""

    at_ns: int
    state: str
    still_s: float = 0.0


Changes = dict[int, list[Change]]


def timeline(
    cursor: duckdb.DuckDBPyConnection,
    run: RunRef,
    *,
    attempt: int | str | None = None,
    now_ns: int | None = None,
) -> dict[str, Any]:
    """In which state each rank was when, in an attempt: a number, "all", or None for the newest.

    Args:
        now_ns: the collector's clock; None where no collector runs: nothing is known after the newest event.

    Returns:
        `from_ns` and `until_ns`: the time of the picture. `states`: their names. `ranks`: by rank and attempt, each
        with its `host` (None where it has not come) and its `spans`: [place of the state in `states`, from, until],
        in order and without a gap. Times are ns of the collector's clock. The last span is the state that the rank
        is in, or that it ended in, and goes on to `until_ns`, or up to the next attempt.
    """
    wanted = newest_attempt(cursor, run) if attempt is None else attempt
    rows = read_ranks(cursor, run, wanted if isinstance(wanted, int) else None)
    answer: dict[str, Any] = {"from_ns": 0, "until_ns": 0, "states": list(STATES), "ranks": []}
    if not rows:
        return answer
    places = _places(rows)
    rows = [row for row in places.values() if row is not None]
    changes = read_changes(cursor, rows)
    began = {attempt: min(row.began_ns for row in group) for attempt, group in _by_attempt(rows).items()}
    most = min(MAX_SPANS, MAX_SPANS_OF_ALL // len(places))
    answer["from_ns"] = min(began.values())
    answer["until_ns"] = until_ns = _until(rows, changes, min(began.values()), now_ns)
    # Each attempt's part of the time ends where the next one's begins.
    ends = dict(itertools.pairwise(sorted(began)))
    for (rank, of), row in sorted(places.items()):
        from_ns, end_ns = began[of], began[ends[of]] if of in ends else until_ns
        known = [] if row is None else [(change.at_ns, change.state) for change in changes[row.writer]]
        spans = spans_of(known, from_ns, max(from_ns, end_ns), before=State.EXPECTED.value, most=most)
        answer["ranks"].append(
            {
                "rank": rank,
                "attempt": of,
                "host": None if row is None else row.host,
                "spans": [[STATES.index(span.state), span.from_ns, span.until_ns] for span in spans],
            }
        )
    return answer


def read_changes(cursor: duckdb.DuckDBPyConnection, rows: Sequence[WriterRow], most: int = MAX_CHANGES) -> Changes:
    """When each of these writers, by number, came into which state: in the collector's clock, as it was learned.

    Args:
        most: of each writer's changes the newest so many.
    """
    by_number = {row.writer: row for row in rows}
    found: Changes = {number: [] for number in by_number}
    asked = {"writers": list(by_number), "most": most}
    for writer, *columns in cursor.execute(_CHANGES, asked).fetchall():
        row = by_number[writer]
        for since_ns, state, still_s in zip(*columns, strict=True):
            # What a writer says itself, of its beginning and its end, is in its own clock.
            is_told = row.opened_ns == since_ns or row.last_ns == since_ns
            at_ns = since_ns + (row.offset_ns or 0) if is_told else since_ns
            found[writer].append(Change(at_ns, state, still_s or 0.0))
    return found


def _by_attempt(rows: Sequence[WriterRow]) -> dict[int, list[WriterRow]]:
    found: dict[int, list[WriterRow]] = {}
    for row in rows:
        found.setdefault(row.attempt, []).append(row)
    return found


def _until(rows: Sequence[WriterRow], changes: Changes, from_ns: int, now_ns: int | None) -> int:
    known = [ns for row in rows if (ns := row.newest_ns) is not None]
    known += [change.at_ns for each in changes.values() for change in each]
    last_ns = max(known, default=from_ns)
    if now_ns is not None and any(row.state not in ENDED for row in rows):
        return max(now_ns, last_ns)
    return last_ns + max(round(_MARGIN * (last_ns - from_ns)), _MARGIN_NS)


def _places(rows: Sequence[WriterRow]) -> dict[tuple[int, int], WriterRow | None]:
    """By rank and attempt, the newest writer of each rank that came; None for those that should have."""
    found: dict[tuple[int, int], WriterRow | None] = {}
    for attempt, group in sorted(_by_attempt(rows).items(), reverse=True):
        came = {row.rank: row for row in group}
        world = max(row.world_size or 0 for row in group)
        # Who came stands before who is missing: a rank may claim any world.
        ranks = list(dict.fromkeys([*sorted(came), *range(min(world, MAX_ROWS))]))[:MAX_ROWS]
        if found and len(found) + len(ranks) > MAX_ROWS:
            break
        found |= {(rank, attempt): came.get(rank) for rank in ranks}
    return found
