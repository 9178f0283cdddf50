"""Clocks that are plainly wrong, and how what their writers have told is put into the collector's.

A clock that is off by little is left alone: an estimate may be off as much, where messages were late. One that was
never near is wrong, and its times say nothing beside those of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allranks_collector.verdict import SECOND_NS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

    from allranks_collector.queries.select import RunRef

    # Writers, and what is to be added to their times, in ns.
    Offsets = tuple[tuple[int, int], ...]

WRONG_NS = 5 * SECOND_NS
# An estimate moves a little all the time; what was put in order by it stays so.
_ROUND_NS = 10_000_000

_WRONG = """
    SELECT writer, arg_max(offset_ns, clocks.rowid) FROM clocks
    WHERE writer IN (SELECT writer FROM writers WHERE run = $run)
    GROUP BY writer HAVING min(abs(offset_ns)) >= $wrong_ns ORDER BY writer"""
# A console has no clock of its own: what it keeps was printed by a writer that has one.
_CONSOLES = """
    SELECT console.writer, parent.writer FROM writers console JOIN writers parent
        ON parent.run = console.run AND parent.id = (console.identity->>'parent')
    WHERE console.run = $run AND console.role = 'console' AND parent.writer IN (SELECT unnest($writers::INTEGER[]))"""


def wrong_clocks(cursor: duckdb.DuckDBPyConnection, run: RunRef) -> Offsets:
    """The writers of a run whose clocks are wrong, and their consoles."""
    found = dict(cursor.execute(_WRONG, {"run": run.run, "wrong_ns": WRONG_NS}).fetchall())
    if found:
        consoles = cursor.execute(_CONSOLES, {"run": run.run, "writers": list(found)}).fetchall()
        found |= {console: found[parent] for console, parent in consoles}
    return tuple((writer, round(offset_ns / _ROUND_NS) * _ROUND_NS) for writer, offset_ns in sorted(found.items()))


def in_one_clock(table: str, offsets: Sequence[tuple[int, int]], of: str = "writer") -> str:
    """SQL that takes the place of a table with a `time_ns`: that of the collector's clock.

    Args:
        offsets: by the number in column `of`, what is to be added.
    """
    if not offsets:
        return table
    numbers, added = ([pair[part] for pair in offsets] for part in (0, 1))
    return (
        f"(SELECT it.* REPLACE (time_ns + coalesce(added_ns, 0) AS time_ns) FROM {table} it LEFT JOIN"
        f" (SELECT unnest({numbers}::INTEGER[]) AS {of}, unnest({added}::BIGINT[]) AS added_ns) USING ({of}))"
    )
