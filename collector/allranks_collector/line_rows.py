"""What ranks print, on its way into the database: blocks of whole lines, taken apart by the database itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import duckdb
import numpy as np

from allranks_collector.lines import Block, LineStream
from allranks_collector.rows import columns_as
from allranks_collector.terminal import Final

# A writer and the number of its stream.
Of = tuple[int, int]


class LineBuffer:
    """Lines that are final, and the streams whose open lines have moved.

    Args:
        stored: gives the lines of a stream that the database has, from one number up to another.

    Attributes:
        lines: how many are final.
        runs: the ids of those whose ranks have printed anything.
    """

    def __init__(self, stored: Callable[[Of, int, int], list[Final]]) -> None:
        self.lines = 0
        self.runs: set[str] = set()
        self._stored = stored
        # A block is what one chunk has ended: making rows of its lines takes no step in Python for each of them.
        self._blocks: list[tuple[Of, Block]] = []
        self._open: dict[Of, LineStream] = {}
        self._ended: set[Of] = set()
        # From which line on, what the database has of a stream is not final any more.
        self._taken_back: dict[Of, int] = {}

    def add(self, run: str, of: Of, stream: LineStream, time_ns: int, chunk: bytes) -> None:
        """Takes in the next bytes of a stream."""
        self._add(run, of, stream.feed(chunk, time_ns, lambda line: self._take_back(of, line, stream.first)))
        self._open[of] = stream

    def interrupt(self, run: str, of: Of, stream: LineStream) -> None:
        """Takes note that lines are missing in a stream."""
        self._add(run, of, stream.interrupt())
        self._open[of] = stream

    def settle(self, run: str, of: Of, stream: LineStream) -> None:
        """Takes note that in all likelihood nothing follows in a stream."""
        self._add(run, of, stream.end())
        self._open[of] = stream

    def end(self, run: str, of: Of, stream: LineStream) -> None:
        """Takes note that nothing follows in a stream."""
        self._add(run, of, stream.end())
        self._open.pop(of, None)
        self._ended.add(of)

    def write(self, connection: duckdb.DuckDBPyConnection, first_number: int) -> None:
        """Inserts the lines, numbered from `first_number` on, and moves open ones; in the caller's transaction."""
        for of, line in self._taken_back.items():
            connection.execute("DELETE FROM lines WHERE writer = ? AND stream = ? AND line >= ?", [*of, line])
        if self._blocks:
            self._insert(connection, first_number)
        if self._open:
            self._move(connection)
        for of in self._ended:
            connection.execute("DELETE FROM open_lines WHERE writer = ? AND stream = ?", of)
            connection.execute("DELETE FROM terminals WHERE writer = ? AND stream = ?", of)

    def _add(self, run: str, of: Of, blocks: list[Block]) -> None:
        for block in blocks:
            self._blocks.append((of, block))
            self.lines += block.lines
        self.runs.add(run)

    def _take_back(self, of: Of, line: int, end: int) -> list[Final]:
        """The final lines of a stream from `line` up to `end`; they leave what is written and what has been."""
        back: list[Final] = []
        for at in range(len(self._blocks) - 1, -1, -1):
            if end <= line:
                break
            whose, block = self._blocks[at]
            if whose == of:
                texts = block.text.split("\n")
                kept = max(0, line - block.first)
                back[:0] = [(block.time_ns, text) for text in texts[kept:]]
                end = block.first + kept
                self.lines -= block.lines - kept
                if kept:
                    self._blocks[at] = of, block._replace(lines=kept, text="\n".join(texts[:kept]))
                else:
                    del self._blocks[at]
        if end > line:
            back[:0] = self._stored(of, line, end)
            self._taken_back[of] = line
        return back

    def _insert(self, connection: duckdb.DuckDBPyConnection, first_number: int) -> None:
        ofs, blocks = zip(*self._blocks, strict=True)
        writers, streams = zip(*ofs, strict=True)
        firsts, times, counts, texts = zip(*blocks, strict=True)
        count = np.array(counts, np.int64)
        columns: dict[str, np.ndarray[Any, Any]] = {
            "number": first_number + np.cumsum(count) - count,
            "writer": np.array(writers, np.int32),
            "stream": np.array(streams, np.uint8),
            "line": np.array(firsts, np.int64),
            "time_ns": np.array(times, np.int64),
            "count": count,
            "text": np.array(texts, object),
        }
        with columns_as(connection, "printed", columns):
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


def load_line_streams(
    connection: duckdb.DuckDBPyConnection, writers: Iterable[int], *, keeps_history: bool
) -> Iterable[tuple[Of, LineStream]]:
    """The streams of these writers, as far as they have come."""
    wanted = "WHERE writer IN (SELECT unnest(?::INTEGER[]))"
    numbers = [list(writers)]
    stored: dict[Of, list[int]] = {}
    for writer, stream, line in connection.execute(
        f"SELECT writer, stream, line FROM open_lines {wanted} ORDER BY line", numbers
    ).fetchall():
        stored.setdefault((writer, stream), []).append(line)
    rows = connection.execute(f"SELECT writer, stream, state FROM terminals {wanted}", numbers).fetchall()
    return [
        (of, LineStream.restored(state, stored.get(of, []), keeps_history=keeps_history))
        for *numbers_of, state in rows
        for of in [(numbers_of[0], numbers_of[1])]
    ]


def final_lines(connection: duckdb.DuckDBPyConnection, of: Of, begin: int, end: int) -> list[Final]:
    """The lines of a stream from one number up to another, as time and text."""
    return connection.execute(
        "SELECT time_ns, text FROM lines WHERE writer = ? AND stream = ? AND line >= ? AND line < ? ORDER BY line",
        [*of, begin, end],
    ).fetchall()


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
