"""What ranks print, on its way into the database: blocks of whole lines, taken apart by the database itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb
import numpy as np

from allranks_collector.lines import OpenLine
from allranks_collector.rows import columns_as


class LineBuffer:
    """Lines that have ended, and the open ones that have moved.

    Attributes:
        lines: how many have ended.
        runs: the ids of those whose ranks have printed anything.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.runs: set[str] = set()
        # A block is what one chunk has ended: making rows of its lines takes no step in Python for each of them.
        # (writer, stream, the first line's number, time, how many, the lines joined by newlines)
        self._blocks: list[tuple[int, int, int, int, int, str]] = []
        self._open: dict[tuple[int, int], OpenLine] = {}

    def add(self, run: str, of: tuple[int, int], line: OpenLine, time_ns: int, chunk: bytes) -> None:
        """Takes in the next bytes of a stream: `of` is its writer and its number, `line` the one that is open."""
        first = line.line
        count, text = line.feed(chunk, time_ns)
        if count:
            self._blocks.append((*of, first, time_ns, count, text))
            self.lines += count
        self._open[of] = line
        self.runs.add(run)

    def write(self, connection: duckdb.DuckDBPyConnection, first_number: int) -> None:
        """Inserts the lines, numbered from `first_number` on, and moves open ones; in the caller's transaction."""
        if self._blocks:
            self._insert(connection, first_number)
        if self._open:
            self._move(connection)

    def _insert(self, connection: duckdb.DuckDBPyConnection, first_number: int) -> None:
        writers, streams, firsts, times, counts, texts = zip(*self._blocks, strict=True)
        count = np.array(counts, np.int64)
        blocks: dict[str, np.ndarray[Any, Any]] = {
            "number": first_number + np.cumsum(count) - count,
            "writer": np.array(writers, np.int32),
            "stream": np.array(streams, np.uint8),
            "line": np.array(firsts, np.int64),
            "time_ns": np.array(times, np.int64),
            "count": count,
            "text": np.array(texts, object),
        }
        with columns_as(connection, "printed", blocks):
            connection.execute(
                "INSERT INTO lines SELECT number + unnest(range(count)), writer, stream, line + unnest(range(count)),"
                " time_ns, unnest(string_split(text, chr(10))) FROM printed"
            )

    def _move(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Brings `open_lines` and `terminals` to where the streams are now; rows that stay are moved in place."""
        moved: list[tuple[Any, ...]] = []
        added: list[tuple[Any, ...]] = []
        gone: list[tuple[int, int, int]] = []
        for of, one in self._open.items():
            now = one.open_lines()
            moved += [(*of, was, *row) for was, row in zip(one.stored, now, strict=False)]
            added += [(*of, *row) for row in now[len(one.stored) :]]
            gone += [(*of, was) for was in one.stored[len(now) :]]
            one.stored = [line for line, *_ in now]
        of_same = "open_lines.writer = moved.writer AND open_lines.stream = moved.stream"
        if gone:
            connection.execute(
                "DELETE FROM open_lines USING (SELECT unnest(?::INTEGER[]) AS writer,"
                " unnest(?::UTINYINT[]) AS stream, unnest(?::BIGINT[]) AS was) moved"
                f" WHERE {of_same} AND open_lines.line = moved.was",
                _columns(gone),
            )
        if moved:
            connection.execute(
                "UPDATE open_lines SET line = moved.line, time_ns = moved.time_ns, text = moved.text FROM (SELECT"
                " unnest(?::INTEGER[]) AS writer, unnest(?::UTINYINT[]) AS stream, unnest(?::BIGINT[]) AS was,"
                " unnest(?::BIGINT[]) AS line, unnest(?::BIGINT[]) AS time_ns, unnest(?::VARCHAR[]) AS text) moved"
                f" WHERE {of_same} AND open_lines.line = moved.was",
                _columns(moved),
            )
        if added:
            connection.execute(
                "INSERT INTO open_lines SELECT unnest(?::INTEGER[]), unnest(?::UTINYINT[]), unnest(?::BIGINT[]),"
                " unnest(?::BIGINT[]), unnest(?::VARCHAR[])",
                _columns(added),
            )
        connection.execute(
            "UPDATE terminals SET state = moved.state FROM (SELECT unnest(?::INTEGER[]) AS writer,"
            " unnest(?::UTINYINT[]) AS stream, unnest(?::BLOB[]) AS state) moved"
            " WHERE terminals.writer = moved.writer AND terminals.stream = moved.stream",
            _columns([(*of, one.state()) for of, one in self._open.items()]),
        )


def load_open_lines(
    connection: duckdb.DuckDBPyConnection, writers: Iterable[int]
) -> Iterable[tuple[int, int, OpenLine]]:
    """The open lines of these writers, as (writer, stream, line)."""
    wanted = "WHERE writer IN (SELECT unnest(?::INTEGER[]))"
    numbers = [list(writers)]
    stored: dict[tuple[int, int], list[int]] = {}
    for writer, stream, line in connection.execute(
        f"SELECT writer, stream, line FROM open_lines {wanted} ORDER BY line", numbers
    ).fetchall():
        stored.setdefault((writer, stream), []).append(line)
    rows = connection.execute(f"SELECT writer, stream, state FROM terminals {wanted}", numbers).fetchall()
    return [
        (writer, stream, OpenLine.restored(state, stored.get((writer, stream), []))) for writer, stream, state in rows
    ]


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
