"""The ledger: what the ingest knows by heart of runs, attempts, writers and series.

It is a cache of the database, used by the ingest's one thread. What is new is also kept as rows in `new`, which the
commit writes with the points that gave rise to them. After a transaction that failed, the whole ledger is thrown
away and read again as it is needed: memory never knows more than the database.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb
import numpy as np

from allranks_bus.errors import ProtocolError
from allranks_collector.books import Keyset, RunBook, WriterBook
from allranks_collector.line_rows import final_lines, load_line_streams
from allranks_collector.lines import LineStream
from allranks_collector.openings import (
    MAX_IDENTITY_TEXT,
    knowledge_of,
    parent_of,
    process_of,
    role_of,
    told_of_run,
    wrapper_of,
)
from allranks_collector.rows import NewRows, jsonable
from allranks_collector.store import Store

# A hostile writer's names must not fill memory; an honest one's that has more is stored no further.
MAX_SERIES_PER_WRITER = 100_000
_KEPT_TEXTS = ("project", "launch", "host")
# What is numbered by the ledger, and in which table.
_NUMBERED = (("run", "runs"), ("writer", "writers"), ("series", "series"), ("event", "events"), ("number", "lines"))


class Ledger:
    """All books, and the numbers given out.

    Args:
        store: read from when something is met for the first time since the start.
        keeps_history: each state of a progress bar becomes a line.
    """

    def __init__(self, store: Store, *, keeps_history: bool = False) -> None:
        self._store = store
        self._keeps_history = keeps_history
        self.new = NewRows()
        self.writers: dict[bytes, WriterBook] = {}
        self._runs: dict[str, RunBook] = {}
        # Runs whose project and name have been told by now.
        self._told: list[tuple[Any, ...]] = []
        # Runs whose attempts have got other numbers.
        self._renumbered: dict[int, RunBook] = {}
        with store.cursor() as cursor:
            self._next = {column: _maximum(cursor, column, table) + 1 for column, table in _NUMBERED}

    def load(self, ids: Iterable[bytes]) -> None:
        """Reads the books of these writers, where they are not known yet and the database has them."""
        wanted = [id_.hex() for id_ in ids if id_ not in self.writers]
        if not wanted:
            return
        with self._store.cursor() as cursor:
            self._load(cursor, wanted)

    def _load(self, cursor: duckdb.DuckDBPyConnection, wanted: list[str]) -> None:
        rows = cursor.execute(
            "SELECT w.writer, w.id, r.run, r.id, w.rank, w.world_size, w.role, w.host, w.identity,"
            " p.next_seq, p.last_step, p.last_ns, p.dropped"
            " FROM writers w JOIN runs r USING (run) JOIN positions p USING (writer)"
            " WHERE w.id IN (SELECT unnest(?::VARCHAR[]))",
            [wanted],
        ).fetchall()
        by_number: dict[int, WriterBook] = {}
        for writer, id_, run, run_id, rank, world, role, host, identity_text, seq, step, ns, dropped in rows:
            identity = json.loads(identity_text)
            book = WriterBook(
                writer,
                bytes.fromhex(id_),
                self._run_book(cursor, run, run_id),
                identity["launch"],
                rank,
                world,
                role,
                host,
                process_of(identity),
                parent_of(identity),
                wrapper_of(identity),
                next_seq=seq,
                last_step=step,
                last_ns=ns,
                dropped=dropped,
            )
            self.writers[book.id] = by_number[writer] = book
        _load_names(cursor, by_number)
        for (writer, number), stream in load_line_streams(cursor, by_number, keeps_history=self._keeps_history):
            by_number[writer].streams[number] = stream

    def open(self, id_: bytes, identity: Mapping[str, Any], time_ns: int) -> WriterBook:
        """The book of a new writer, made from the identity in its OPEN record.

        Raises:
            ProtocolError: it says more than can be kept.
        """
        for name in _KEPT_TEXTS:
            if len(identity[name]) > MAX_IDENTITY_TEXT:
                raise ProtocolError(f"an identity's {name!r} has at most {MAX_IDENTITY_TEXT} characters")
        run = self._run(identity, time_ns)
        self._tell(run, identity)
        launch, started = identity["launch"], identity.get("started")
        is_new = launch not in run.starts
        if run.begin(launch, started if type(started) is int and 0 < started < 2**63 else time_ns):
            self._renumbered[run.run] = run
        attempt = run.attempts[launch]
        if is_new:
            self.new.attempts.append((run.run, attempt, launch, run.starts[launch]))
        role = role_of(identity)
        book = WriterBook(
            self._number("writer"),
            id_,
            run,
            launch,
            identity["rank"],
            identity["world_size"],
            role,
            identity["host"],
            process_of(identity),
            parent_of(identity),
            wrapper_of(identity),
            last_ns=time_ns,
        )
        self.writers[id_] = book
        local_rank = identity.get("local_rank")
        self.new.writers.append(
            (
                book.writer,
                id_.hex(),
                run.run,
                attempt,
                book.rank,
                local_rank if type(local_rank) is int and 0 <= local_rank < 2**31 else None,
                book.world_size,
                role,
                book.host,
                book.process.pid,
                json.dumps(jsonable(identity)),
                time_ns,
            )
        )
        self.new.positions.append((book.writer, 0, None, time_ns, 0))
        if not book.is_console:
            self.new.states.append((book.writer, time_ns, "running", "{}"))
        return book

    def open_again(self, book: WriterBook, identity: Mapping[str, Any]) -> None:
        """Takes in an OPEN record of a writer that is known: it may tell what it had only implied, or a new name."""
        self._tell(book.run, identity)

    def write(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Writes all that is new; in the caller's transaction."""
        self.new.write(connection)
        for told in self._told:
            connection.execute(
                "UPDATE runs SET project = ?, group_name = ?, name = ?, notes = ?, tags = ? WHERE run = ?", told
            )
        for book in self._renumbered.values():
            _renumber(connection, book)

    def clear(self) -> None:
        """Forgets what was new: it is stored."""
        self.new.clear()
        self._told.clear()
        self._renumbered.clear()

    def series(self, book: WriterBook, key: str, kind: str) -> int | None:
        """The number of the series of `key`, given one if need be; None where the writer has too many."""
        number = book.series.get((key, kind))
        if number is None:
            if len(book.series) >= MAX_SERIES_PER_WRITER:
                return None
            number = book.series[key, kind] = self._number("series")
            self.new.series.append((number, book.writer, key, kind))
        return number

    def define(self, book: WriterBook, keyset: int, names: list[str]) -> bool:
        """Gives `names` the number `keyset`; False where the writer has too many series."""
        numbers = [self.series(book, name, "metric") for name in names]
        if None in numbers:
            return False
        series = np.array(numbers, np.int32)
        book.keysets[keyset] = Keyset(series, series.tobytes())
        self.new.keysets.append((book.writer, keyset, json.dumps(names)))
        return True

    def stream(self, book: WriterBook, number: int) -> LineStream:
        """What a writer prints to a stream."""
        stream = book.streams.get(number)
        if stream is None:
            stream = book.streams[number] = LineStream(keeps_history=self._keeps_history)
            self.new.terminals.append((book.writer, number, stream.state()))
        return stream

    def consoles_before(self, book: WriterBook) -> list[WriterBook]:
        """The consoles that kept what the same writer prints before this one did, where they are in memory."""
        return [
            other
            for other in self.writers.values()
            if other.is_console and other.parent == book.parent != "" and other is not book
        ]

    def final_lines(self, of: tuple[int, int], begin: int, end: int) -> list[tuple[int, str]]:
        """The stored lines of a writer's stream from one number up to another, as time and text."""
        with self._store.cursor() as cursor:
            return final_lines(cursor, of, begin, end)

    def number_lines(self, count: int) -> int:
        """Gives so many lines their numbers; the first of them."""
        number = self._next["number"]
        self._next["number"] = number + count
        return number

    def event(self, book: WriterBook, time_ns: int, kind: str, body: Mapping[str, Any]) -> None:
        """Adds a row to the run's events."""
        self.add_event(book.run.run, book.writer, time_ns, kind, body)

    def add_event(self, run: int, writer: int | None, time_ns: int, kind: str, body: Mapping[str, Any]) -> None:
        """Adds a row to the events of a run, by numbers."""
        number = self._number("event")
        self.new.events.append((number, run, writer, time_ns, kind, json.dumps(jsonable(body))))

    def run_number(self, run_id: object) -> int | None:
        """The number of a run that is known already, by its id."""
        if isinstance(run_id, str) and run_id in self._runs:
            return self._runs[run_id].run
        with self._store.cursor() as cursor:
            row = cursor.execute("SELECT run FROM runs WHERE id = ?", [str(run_id)]).fetchone()
        return None if row is None else int(row[0])

    def forget_writer(self, id_: bytes) -> None:
        """Drops a writer from memory; the database has it."""
        self.writers.pop(id_, None)

    def forget_run(self, run: int) -> None:
        """Drops a run and its writers from memory: it has been removed."""
        self._runs = {id_: book for id_, book in self._runs.items() if book.run != run}
        self.writers = {id_: book for id_, book in self.writers.items() if book.run.run != run}

    def _run(self, identity: Mapping[str, Any], time_ns: int) -> RunBook:
        run_id = identity["run"]
        if run_id in self._runs:
            return self._runs[run_id]
        with self._store.cursor() as cursor:
            row = cursor.execute("SELECT run FROM runs WHERE id = ?", [run_id]).fetchone()
            if row is not None:
                return self._run_book(cursor, row[0], run_id)
        book = self._runs[run_id] = RunBook(self._number("run"), run_id, _knowledge(identity))
        self.new.runs.append((book.run, run_id, *told_of_run(identity), time_ns))
        return book

    def _tell(self, run: RunBook, identity: Mapping[str, Any]) -> None:
        told = identity.get("told")
        told_ns = told if isinstance(told, int) else 0
        is_renamed = told_ns > run.told_ns
        run.told_ns = max(run.told_ns, told_ns)
        knowledge = _knowledge(identity)
        if is_renamed or knowledge > run.told_by:
            run.told_by = max(run.told_by, knowledge)
            self._told.append((*told_of_run(identity), run.run))

    def _run_book(self, cursor: duckdb.DuckDBPyConnection, run: int, run_id: str) -> RunBook:
        book = self._runs.get(run_id)
        if book is None:
            book = self._runs[run_id] = RunBook(run, run_id)
            rows = cursor.execute(
                "SELECT launch, attempt, started_ns FROM attempts WHERE run = ? ORDER BY attempt", [run]
            ).fetchall()
            book.attempts = {launch: attempt for launch, attempt, _ in rows}
            book.starts = {launch: started_ns for launch, _, started_ns in rows}
            told = cursor.execute(
                "SELECT DISTINCT role, coalesce((identity->>'implied') = 'true', false) FROM writers WHERE run = ?",
                [run],
            ).fetchall()
            worlds = cursor.execute(
                "SELECT DISTINCT identity->>'launch', world_size FROM writers WHERE run = ? AND role = 'rank'", [run]
            ).fetchall()
            for launch, size in worlds:
                book.worlds.setdefault(launch, set()).add(size)
            book.told_by = max((knowledge_of(role, is_implied=is_implied) for role, is_implied in told), default=0)
        return book

    def _number(self, table: str) -> int:
        number = self._next[table]
        self._next[table] = number + 1
        return number


def _knowledge(identity: Mapping[str, Any]) -> int:
    return knowledge_of(identity.get("role"), is_implied=identity.get("implied") is True)


def _renumber(connection: duckdb.DuckDBPyConnection, book: RunBook) -> None:
    """Gives the stored attempts and writers of a run the numbers that they have now."""
    launches = list(book.attempts)
    columns = [launches, [book.attempts[launch] for launch in launches], [book.starts[launch] for launch in launches]]
    connection.execute(
        "UPDATE attempts SET attempt = now.attempt, started_ns = now.started_ns FROM (SELECT"
        " unnest(?::VARCHAR[]) AS launch, unnest(?::INTEGER[]) AS attempt, unnest(?::BIGINT[]) AS started_ns) now"
        " WHERE attempts.run = ? AND attempts.launch = now.launch",
        [*columns, book.run],
    )
    # In parentheses, because `->>` binds more loosely than `=` up to DuckDB 1.5.
    connection.execute(
        "UPDATE writers SET attempt = now.attempt FROM attempts now"
        " WHERE writers.run = ? AND now.run = writers.run AND now.launch = (writers.identity->>'launch')",
        [book.run],
    )


def _load_names(cursor: duckdb.DuckDBPyConnection, books: Mapping[int, WriterBook]) -> None:
    """Fills in the series and keysets of these writers, by number."""
    if not books:
        return
    numbers = list(books)
    wanted = "WHERE writer IN (SELECT unnest(?::INTEGER[]))"
    for series, writer, key, kind in cursor.execute(
        f"SELECT series, writer, key, kind FROM series {wanted}", [numbers]
    ).fetchall():
        books[writer].series[key, kind] = series
    for writer, keyset, names in cursor.execute(
        f"SELECT writer, keyset, names FROM keysets {wanted}", [numbers]
    ).fetchall():
        book = books[writer]
        array = np.array([book.series[name, "metric"] for name in json.loads(names)], np.int32)
        book.keysets[keyset] = Keyset(array, array.tobytes())


def _maximum(cursor: duckdb.DuckDBPyConnection, column: str, table: str) -> int:
    row = cursor.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()
    return int(row[0]) if row is not None else 0
