"""What a database says where no collector runs: who is called running in it may be gone, with the collector or since.

A machine that is started again, or a container that is killed as a whole, takes its collector along: nobody is left
to store that the ranks are dead. Who reads then looks himself, as far as can be seen from here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from allranks_bus import processes
from allranks_collector.openings import process_of

if TYPE_CHECKING:
    import duckdb

    from allranks_bus.processes import ProcessIdentity

_LIVING = """
    SELECT writer, host, identity, last_ns FROM writers JOIN positions USING (writer) LEFT JOIN
        (SELECT writer, arg_max(state, rowid) AS state FROM states GROUP BY writer) s USING (writer)
    WHERE role <> 'console' AND coalesce(s.state, 'running') IN ('running', 'stalled', 'unreachable')"""
_DETAIL = json.dumps({"unseen": True, "reason": "its process is gone, and no collector saw how"})


def tell_the_gone(cursor: duckdb.DuckDBPyConnection) -> None:
    """For this cursor alone, those whose processes are gone are dead since their newest record; writes nothing."""
    gone = [
        (writer, last_ns, "dead", _DETAIL)
        for writer, host, identity, last_ns in cursor.execute(_LIVING).fetchall()
        if last_ns is not None and _is_gone(process_of(json.loads(identity)), host)
    ]
    if gone:
        # It takes the place of the table of this name, and has its rows in their order.
        cursor.execute("CREATE TEMP TABLE states AS SELECT * FROM states ORDER BY rowid")
        cursor.executemany("INSERT INTO temp.states VALUES (?, ?, ?, ?)", gone)


def _is_gone(process: ProcessIdentity, host: str) -> bool:
    """Whether it surely is: it would be seen here, or this host has been started again."""
    if process.is_visible:
        return not processes.is_alive(process.pid, process.start)
    return process.is_of_boot_before(host)
