"""What is known of a run and its ranks when an alert of them is written; read in a worker thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from allranks_collector.alerts.rules import Facts, Group, Happening
from allranks_collector.queries.select import RunRef
from allranks_collector.queries.why import why
from allranks_collector.store import Store
from allranks_collector.verdict import LEFT

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

# What comes in so long after it was recorded (a spool of yesterday) is history.
STALE_NS = 3_600_000_000_000
_LINE_WITHIN_NS = 600_000_000_000

# One row per writer: who it is, how far it came, and its run.
_WRITERS = """
    SELECT writer, host, rank, attempt, last_step, last_ns FROM writers LEFT JOIN positions USING (writer)
    WHERE writer IN (SELECT unnest($writers::INTEGER[]))"""
_LAST_LINE = """
    SELECT text FROM lines WHERE time_ns >= $since AND text <> '' AND writer IN (
        SELECT writer FROM writers WHERE run = $run AND attempt = $attempt AND rank = $rank AND role = 'console')
    ORDER BY time_ns DESC, number DESC LIMIT 1"""


def read_facts(store: Store, group: Group, met: Mapping[int, int]) -> tuple[Group | None, Facts | None]:
    """The group less what is history, and what is known of its run and its first rank; in a worker thread."""
    with store.cursor() as cursor:
        run = group.first.run
        rows = cursor.execute("SELECT id, name, created_ns FROM runs WHERE run = ?", [run]).fetchall()
        if not rows:
            return None, None
        facts = Facts(rows[0][0], rows[0][1])
        every = [*group.happenings, *group.causes]
        writers = sorted({one.writer for one in every if one.writer is not None})
        known = {row[0]: row for row in cursor.execute(_WRITERS, {"writers": writers}).fetchall()}

        def is_news(one: Happening) -> bool:
            row = known.get(-1 if one.writer is None else one.writer)
            if row is None or row[5] is None or group.is_recovery or not one.rule.lasts:
                return True
            # It was old when it was met: a spool of a run that is over.
            return not (is_old(row[5]) and not is_old(met.get(row[0], time.time_ns())))

        happenings = [one for one in group.happenings if is_news(one)]
        causes = [one for one in group.causes if is_news(one)]
        if not happenings or (group.causes and not causes):
            return None, None
        if not group.is_recovery and {one.rule.family for one in causes or happenings} == {"down"}:
            first, cause = _first_failure(cursor, RunRef(run, rows[0][0], rows[0][2]))
            facts = replace(facts, cause=cause)
            happenings, causes = _led_by(first, happenings), _led_by(first, causes)
        group = replace(group, happenings=happenings, causes=causes)
        row = known.get((causes or happenings)[0].writer or -1)
        if row is None:
            return group, facts
        since = time.time_ns() - _LINE_WITHIN_NS
        asked = {"run": run, "attempt": row[3], "rank": row[2], "since": since}
        lines = cursor.execute(_LAST_LINE, asked).fetchall()
        return group, replace(facts, host=row[1], step=row[4], line=lines[0][0] if lines else "")


def _first_failure(cursor: duckdb.DuckDBPyConnection, run: RunRef) -> tuple[int | None, str]:
    """The rank that failed first, for they are seen to fall in another order than that in which they do.

    And why they failed, in one line, where it is a rank that has not failed itself.
    """
    try:
        found = why(cursor, run, is_brief=True)
    except Exception:  # an alert that names another one first is better than none
        logger.exception("why the run %s has failed", run.id)
        return None, ""
    first = found["first"]
    if first is None:
        return None, ""
    return first["rank"], found["verdict"] if first["kind"] == LEFT.name else ""


def _led_by(first: int | None, told: list[Happening]) -> list[Happening]:
    """The same happenings, with that of the first failure in front."""
    return sorted(told, key=lambda one: first is None or one.rank != first)


def is_old(at_ns: int) -> bool:
    """True for what is history."""
    return time.time_ns() - at_ns > STALE_NS
