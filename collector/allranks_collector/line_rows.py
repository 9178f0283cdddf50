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
        rows = [(*of, one.line, one.time_ns, one.raw, one.cut, one.is_returned) for of, one in self._open.items()]
        connection.execute(
            "UPDATE open_lines SET line = moved.line, time_ns = moved.time_ns, raw = moved.raw, cut = moved.cut,"
            " is_returned = moved.is_returned FROM (SELECT"
            " unnest(?::INTEGER[]) AS writer, unnest(?::UTINYINT[]) AS stream, unnest(?::BIGINT[]) AS line,"
            " unnest(?::BIGINT[]) AS time_ns, unnest(?::BLOB[]) AS raw, unnest(?::BIGINT[]) AS cut,"
            " unnest(?::BOOLEAN[]) AS is_returned) moved"
            " WHERE open_lines.writer = moved.writer AND open_lines.stream = moved.stream",
            [list(column) for column in zip(*rows, strict=True)],
        )


def load_open_lines(
    connection: duckdb.DuckDBPyConnection, writers: Iterable[int]
) -> Iterable[tuple[int, int, OpenLine]]:
    """The open lines of these writers, as (writer, stream, line)."""
    rows = connection.execute(
        "SELECT writer, stream, line, time_ns, raw, cut, is_returned FROM open_lines"
        " WHERE writer IN (SELECT unnest(?::INTEGER[]))",
        [list(writers)],
    ).fetchall()
    return [(writer, stream, OpenLine(*fields)) for writer, stream, *fields in rows]
