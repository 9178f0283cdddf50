"""Retention: which runs have been over for long enough to go."""

from __future__ import annotations

import time

from allranks_collector.store import Store

_DAY_NS = 86_400 * 1_000_000_000

# The newest state of each writer, and when it was taken; a run is over when all of its writers are.
_OVER = """
    SELECT run FROM (
        SELECT w.run, w.writer, arg_max(s.state, s.rowid) AS state, max(s.since_ns) AS since_ns
        FROM writers w LEFT JOIN states s USING (writer) GROUP BY ALL)
    GROUP BY run
    HAVING bool_and(state IN ('finished', 'failed', 'dead', 'unreachable')) AND max(since_ns) < $before
    ORDER BY run"""


def runs_to_remove(store: Store, keep_days: float) -> list[int]:
    """The numbers of the runs that ended more than `keep_days` ago."""
    before = time.time_ns() - int(keep_days * _DAY_NS)
    with store.cursor() as cursor:
        return [run for (run,) in cursor.execute(_OVER, {"before": before}).fetchall()]
