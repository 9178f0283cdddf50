"""The ingest: batches in, one transaction, acks out.

Everything that waits is committed together with the positions of its writers: an ack means stored, and a batch that
comes again is recognised by its seq. The more there is, the larger the commit: throughput grows by itself. All of
this runs in one worker thread; the rules are those of docs/protocol.md §8.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from allranks_bus import events, untrusted
from allranks_bus.errors import ProtocolError
from allranks_bus.wire import Ack, Batch, Refused
from allranks_collector.books import WriterBook
from allranks_collector.claims import REFUSED, world_told
from allranks_collector.commits import BadValue, ClockNote, Committed, EventNote, Note, StateNote
from allranks_collector.decode import Decoder, opening_of
from allranks_collector.health import TRANSITIONS, State, sign_of_close
from allranks_collector.ledger import Ledger
from allranks_collector.queries.figures import computed_stats
from allranks_collector.rows import columns_as, jsonable
from allranks_collector.stats import SeriesStats
from allranks_collector.store import Store, StoreError

logger = logging.getLogger(__name__)

_BROKEN_AT_MOST = 3
# A writer's whole window may be on its way behind a gap: each batch of it must not ask anew.
_ASK_AGAIN_S = 0.5
# Books kept in memory; the oldest are read again from the database when they are needed.
_MAX_WRITERS = 20_000
_MAX_REMOVED = 10_000
_COMPLAIN_S = 10.0
_MAX_SEQ = 2**62
# Whose refusal has been said: anybody may send anything.
_MOST_REFUSALS = 1000
_OUR_MISTAKE = "the collector could not take this writer's events; see its log"


class _Poison(Exception):
    """A writer's batch met a mistake of ours; the others' must not suffer for it."""

    def __init__(self, writer: bytes) -> None:
        self.writer = writer


class Ingest:
    """Stores batches; `commit` is called by one thread at a time.

    Args:
        bar_history: each state of a progress bar becomes a line.

    Attributes:
        positions: by writer's id, how far it is stored: read by any thread.
        stats: figures of every series that is written to.
    """

    def __init__(self, store: Store, *, bar_history: bool = False) -> None:
        self.positions: dict[bytes, int] = {}
        self.stats = SeriesStats()
        self._store = store
        self._bar_history = bar_history
        self._ledger: Ledger | None = None
        self._ended_runs: set[int] = set()
        # The tees of runs that were removed after their end, which have still to tell their last lines.
        self._removed: dict[bytes, None] = {}
        # Runs whose figures are to be stored, once that is possible.
        self._figures_due: set[int] = set()
        # Series that have had a value which is not finite.
        self._nonfinite: set[int] = set()
        self._refusals: set[bytes] = set()
        self._complained_at = float("-inf")

    def book(self, id_: bytes) -> WriterBook | None:
        """What is known of a writer that this ingest has met."""
        ledger = self._ledger
        return None if ledger is None else ledger.writers.get(id_)

    def commit(
        self,
        batches: Sequence[Batch],
        *,
        asking: Iterable[bytes] = (),
        notes: Sequence[Note] = (),
        ended_runs: Iterable[int] = (),
    ) -> Committed:
        """Stores `batches` and `notes` in one transaction.

        Args:
            batches: in the order of their arrival.
            asking: writers that want to know their position.
            ended_runs: runs all of whose ranks have ended: their figures are stored for good.

        Raises:
            StoreError: nothing is stored, and nothing must be acked; call again with what comes then.
        """
        refused: dict[bytes, Ack | Refused] = {}
        while True:
            try:
                committed = self._commit(batches, set(asking), notes, set(ended_runs))
            except _Poison as poison:
                self._ledger = None
                refused[poison.writer] = Refused(_OUR_MISTAKE)
                batches = [batch for batch in batches if batch.writer != poison.writer]
                continue
            except StoreError:
                self._ledger = None
                raise
            except Exception:
                self._ledger = None
                self._complain("a commit")
                committed = self._commit_apart(batches, set(asking), notes, set(ended_runs))
            committed.answers.update(refused)
            return committed

    def _commit_apart(
        self, batches: Sequence[Batch], asking: set[bytes], notes: Sequence[Note], ended: set[int]
    ) -> Committed:
        """After a mistake of ours with all of it: commits each writer's batches alone, so that one pays for it."""
        done = Committed()
        for writer in dict.fromkeys(batch.writer for batch in batches):
            try:
                done.add(self._commit([batch for batch in batches if batch.writer == writer], set(), (), set()))
            except StoreError:
                self._ledger = None
                raise
            except Exception:
                self._ledger = None
                done.answers[writer] = Refused(_OUR_MISTAKE)
        done.add(self._commit((), asking, notes, ended))
        return done

    def preload(self, runs: Iterable[int]) -> None:
        """Reads the writers of these runs and the figures of their series; in the thread of `commit`.

        Else each list of runs would scan the points of ranks that have not come back yet.
        """
        with self._store.cursor() as cursor:
            rows = cursor.execute(
                "SELECT id FROM writers WHERE run IN (SELECT unnest(?::INTEGER[]))", [list(runs)]
            ).fetchall()
        self._load(self._ready_ledger(), {bytes.fromhex(id_) for (id_,) in rows})

    def forget_run(self, run: int) -> None:
        """Drops a removed run from memory; in the thread of `commit`.

        What its tees still tell of a run that had ended is taken and dropped: a run without ranks would come back.
        """
        if self._ledger is not None:
            for book in list(self._ledger.writers.values()):
                if book.run.run == run:
                    self.positions.pop(book.id, None)
                    self.stats.forget(book.series.values())
                    if book.is_console and run in self._ended_runs:
                        self._removed[book.id] = None
            for id_ in list(self._removed)[:-_MAX_REMOVED]:
                del self._removed[id_]
            self._ledger.forget_run(run)
        self._ended_runs.discard(run)
        self._figures_due.discard(run)

    def _commit(
        self, batches: Sequence[Batch], asking: set[bytes], notes: Sequence[Note], ended: set[int]
    ) -> Committed:
        ledger = self._ready_ledger()
        self._load(ledger, asking | {batch.writer for batch in batches})
        decoder, done = Decoder(ledger), Committed()
        touched: dict[bytes, WriterBook] = {}
        for batch in batches:
            try:
                answer = self._take(ledger, decoder, batch, done)
            except Exception as error:
                self._complain(f"a batch of writer {batch.writer.hex()}")
                raise _Poison(batch.writer) from error
            if answer is not None:
                done.answers[batch.writer] = answer
            else:
                # What a gap asked for has come meanwhile.
                done.answers.pop(batch.writer, None)
            book = ledger.writers.get(batch.writer)
            if book is not None:
                touched[batch.writer] = book
        for note in notes:
            self._note(ledger, note)
        closed = [(book, end) for book, end in decoder.closed if not book.is_console]
        for book, end in closed:
            # With the CLOSE itself: a collector that dies now must not find its writer running.
            sign, detail = sign_of_close(end)
            state = TRANSITIONS[State.RUNNING][sign].value
            self._note(ledger, StateNote(book.writer, book.run.run, book.last_ns, state, detail))
        self._ended_runs |= ended
        logged = {book.run.run for book in touched.values() if not book.is_console}
        self._figures_due |= ended | (logged & self._ended_runs)
        columns = decoder.points.columns() if decoder.points.points else None
        with self._store.transaction() as connection:
            if columns is not None:
                with columns_as(connection, "arrived", columns):
                    # DuckDB takes a NaN in an array for NULL.
                    connection.execute(
                        "INSERT INTO points SELECT series, step, time_ns, coalesce(value, 'nan'::DOUBLE) FROM arrived"
                    )
            ledger.write(connection)
            decoder.lines.write(connection, ledger.number_lines(decoder.lines.lines))
            if touched:
                _move_positions(connection, list(touched.values()))
        ledger.clear()
        if columns is not None:
            self.stats.update(columns["series"], columns["step"], columns["time_ns"], columns["value"])
        self._store_figures()
        if columns is not None:
            done.bad_values = self._bad_values(touched.values(), columns)
        done.alerts = decoder.alerts
        done.closed = closed
        done.printed = decoder.lines.runs
        done.answered = decoder.answered
        done.events, done.points = decoder.points.events, decoder.points.points
        self._answer(ledger, touched, asking, done)
        for book, _ in decoder.closed:
            # Nothing follows a CLOSE; should it come again, it is read from the database.
            ledger.forget_writer(book.id)
            self.positions.pop(book.id, None)
        return done

    def _bad_values(self, books: Iterable[WriterBook], columns: Mapping[str, Any]) -> list[BadValue]:
        """Of each series the first value that is not finite; each is looked for once in its life."""
        bad = np.flatnonzero(~np.isfinite(columns["value"]))
        if not len(bad):
            return []
        numbers, firsts = np.unique(columns["series"][bad], return_index=True)
        new = {int(n): int(bad[i]) for n, i in zip(numbers, firsts, strict=True) if int(n) not in self._nonfinite}
        if not new:
            return []
        self._nonfinite |= new.keys()
        return [
            BadValue(book, key, float(columns["value"][at]), int(columns["step"][at]), int(columns["time_ns"][at]))
            for book in books
            for (key, kind), number in book.series.items()
            if kind == "metric" and (at := new.get(number)) is not None
        ]

    def _ready_ledger(self) -> Ledger:
        if self._ledger is None:
            self._ledger = Ledger(self._store, keeps_history=self._bar_history)
        elif len(self._ledger.writers) > _MAX_WRITERS:
            for id_ in list(self._ledger.writers)[: _MAX_WRITERS // 4]:
                self._ledger.forget_writer(id_)
                self.positions.pop(id_, None)
        return self._ledger

    def _load(self, ledger: Ledger, ids: set[bytes]) -> None:
        """Reads what the database knows of these writers, and the figures of their series."""
        unknown = [id_ for id_ in ids if id_ not in ledger.writers]
        if not unknown:
            return
        ledger.load(unknown)
        books = [ledger.writers[id_] for id_ in unknown if id_ in ledger.writers]
        series = [number for book in books for number in book.series.values()]
        if series:
            with self._store.cursor() as cursor:
                self.stats.seed(computed_stats(cursor, series))
        for book in books:
            self.positions[book.id] = book.next_seq

    def _take(self, ledger: Ledger, decoder: Decoder, batch: Batch, done: Committed) -> Ack | Refused | None:
        """Takes a batch in; returns an answer that is other than an ack of the position."""
        if batch.first_seq > _MAX_SEQ:
            return Refused(f"a seq is at most {_MAX_SEQ}, not {batch.first_seq}")
        if batch.writer in self._removed:
            return self._ack(batch.first_seq + batch.count)
        book = ledger.writers.get(batch.writer)
        if book is None:
            opening = opening_of(batch.body)
            if opening is None:
                if batch.first_seq != batch.base:
                    return self._ack(0, resend=True)
                return Refused("a writer's first record must be an OPEN")
            try:
                book = ledger.open(batch.writer, events.check_identity(opening[2]), opening[1])
            except ProtocolError as error:
                self._refused(ledger, batch.writer, opening[2], str(error))
                return Refused(str(error))
            if book.role == "rank":
                self._see_world(ledger, book, opening[1])
            if book.is_console:
                decoder.succeed(book)
            else:
                ledger.event(book, opening[1], "opened", {"rank": book.rank, "role": book.role})
                done.opened.append(book)
        position, end = book.next_seq, batch.first_seq + batch.count
        if end <= position:
            return None
        if batch.first_seq > position:
            if batch.first_seq != batch.base:
                return self._ask_again(book)
            ledger.event(book, time.time_ns(), "gap", {"from": position, "to": batch.first_seq})
            position = batch.first_seq
        skip = position - batch.first_seq
        passed = max(skip, decoder.batch(book, batch.body, batch.count, skip))
        if passed > skip or position > book.next_seq:
            book.broken = 0
        book.next_seq = batch.first_seq + passed
        if not book.is_console:
            done.touched[book.run.id] = max(done.touched.get(book.run.id, -1), book.last_step or 0)
        if book.last_step is not None:
            done.steps[book.writer] = book.last_step
        if passed == batch.count:
            return None
        book.broken += 1
        if book.broken >= _BROKEN_AT_MOST:
            decoder.pass_over(book, time.time_ns())
            book.next_seq += 1
            book.broken = 0
        return self._ask_again(book)

    def _see_world(self, ledger: Ledger, book: WriterBook, time_ns: int) -> None:
        run = book.run
        odd = world_told(run.worlds, run.attempts, book.launch, book.rank, book.world_size)
        run.worlds.setdefault(book.launch, set()).add(book.world_size)
        if odd is not None:
            ledger.event(book, time_ns, *odd)

    def _refused(self, ledger: Ledger, writer: bytes, identity: Any, reason: str) -> None:
        """Says once of a writer that it is refused, in the run that it names: nothing else that it says counts."""
        if writer in self._refusals or len(self._refusals) >= _MOST_REFUSALS:
            return
        self._refusals.add(writer)
        named = identity if isinstance(identity, dict) else {}
        who = {key: untrusted.brief(named.get(key)) for key in ("host", "pid", "rank", "world_size")}
        text = f"a process (pid {who['pid']} on {who['host']}) is refused: {reason}"
        logger.warning("%s", text)
        run = ledger.run_number(named.get("run"))
        if run is not None:
            ledger.add_event(run, None, time.time_ns(), REFUSED, {**who, "text": text})

    def _note(self, ledger: Ledger, note: Note) -> None:
        if isinstance(note, ClockNote):
            ledger.new.clocks.append((note.writer, note.offset_ns))
            return
        if isinstance(note, EventNote):
            ledger.add_event(note.run, note.writer, note.time_ns, note.kind, note.body)
            return
        detail = json.dumps(jsonable(note.detail))
        ledger.new.states.append((note.writer, note.since_ns, note.state, detail))
        # The exception is told by the event "closed".
        told = {key: value for key, value in note.detail.items() if key != "exception"}
        ledger.add_event(note.run, note.writer, note.since_ns, "state", {"state": note.state, **told})

    def _answer(
        self, ledger: Ledger, touched: Mapping[bytes, WriterBook], asking: set[bytes], done: Committed
    ) -> None:
        for id_, book in touched.items():
            self.positions[id_] = book.next_seq
            done.answers.setdefault(id_, self._ack(book.next_seq))
        for id_ in asking:
            known = ledger.writers.get(id_)
            done.answers.setdefault(id_, self._ack(0 if known is None else known.next_seq))

    def _store_figures(self) -> None:
        """Stores the figures that are due; where that fails, the next commit tries again: this one has succeeded."""
        for run in sorted(self._figures_due):
            try:
                self._store_stats(run)
            except StoreError as error:
                logger.warning("the figures of run %d must wait: %s", run, error)
                return
            self._figures_due.discard(run)

    def _store_stats(self, run: int) -> None:
        """Stores the figures of a run's series, of which no more are to come."""
        of_run = "FROM writers JOIN series USING (writer) WHERE run = ?"
        with self._store.cursor() as cursor:
            writers = cursor.execute(f"SELECT DISTINCT id {of_run}", [run]).fetchall()
            rows = cursor.execute(f"SELECT series {of_run}", [run]).fetchall()
        self._load(self._ready_ledger(), {bytes.fromhex(id_) for (id_,) in writers})
        figures = self.stats.columns(series for (series,) in rows)
        with self._store.transaction() as connection, columns_as(connection, "figures", figures):
            connection.execute("DELETE FROM series_stats WHERE series IN (SELECT series FROM figures)")
            connection.execute("INSERT INTO series_stats BY NAME SELECT * FROM figures")

    def _complain(self, what: str) -> None:
        """Logs the exception at hand; a writer sends such a batch again and again."""
        now = time.monotonic()
        if now - self._complained_at >= _COMPLAIN_S:
            self._complained_at = now
            logger.exception("%s could not be taken", what)

    def _ask_again(self, book: WriterBook) -> Ack:
        """RESEND from the writer's position; but an ack while what was asked for may still be on its way."""
        now = time.monotonic()
        is_due = now - book.asked_again_at >= _ASK_AGAIN_S or book.asked_again_seq != book.next_seq
        if is_due:
            book.asked_again_at, book.asked_again_seq = now, book.next_seq
        return self._ack(book.next_seq, resend=is_due)

    def _ack(self, position: int, *, resend: bool = False) -> Ack:
        return Ack(position, self._store.instance, time.time_ns(), resend)


def _move_positions(connection: Any, books: Sequence[WriterBook]) -> None:
    # Masked, because a writer without a step yet has none.
    steps = np.ma.array(
        [book.last_step or 0 for book in books], np.int64, mask=[book.last_step is None for book in books]
    )
    moved: dict[str, np.ndarray[Any, Any]] = {
        "writer": np.array([book.writer for book in books], np.int32),
        "next_seq": np.array([book.next_seq for book in books], np.int64),
        "last_step": steps,
        "last_ns": np.array([book.last_ns for book in books], np.int64),
        "dropped": np.array([book.dropped for book in books], np.int64),
    }
    with columns_as(connection, "moved", moved):
        connection.execute(
            "UPDATE positions SET next_seq = moved.next_seq, last_step = moved.last_step, last_ns = moved.last_ns,"
            " dropped = moved.dropped FROM moved WHERE positions.writer = moved.writer"
        )
