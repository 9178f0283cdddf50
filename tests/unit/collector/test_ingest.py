"""The ingest: docs/protocol.md §8 row by row, and that memory never knows more than the database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.support.writers import T0_NS, HandWriter, number, numbers

from allranks_bus import events, records
from allranks_bus.events import Kind
from allranks_bus.wire import Ack, Batch, Refused
from allranks_collector import decode, rows
from allranks_collector.commits import Committed, StateNote
from allranks_collector.ingest import Ingest
from allranks_collector.store import DiskFull, Store


@pytest.fixture
def ingest(store: Store) -> Ingest:
    return Ingest(store)


def _rows(store: Store, statement: str) -> list[tuple[Any, ...]]:
    with store.cursor() as cursor:
        return cursor.execute(statement).fetchall()


def _steps(store: Store) -> list[int]:
    return [step for (step,) in _rows(store, "SELECT step FROM points ORDER BY rowid")]


def _kinds(store: Store) -> list[str]:
    return [kind for (kind,) in _rows(store, "SELECT kind FROM events ORDER BY event")]


def _answer(done: Committed, writer: HandWriter) -> tuple[int, bool]:
    answer = done.answers[writer.name]
    assert isinstance(answer, Ack), answer
    return answer.next_seq, answer.resend


def _opened(ingest: Ingest, events_: int = 4) -> HandWriter:
    """A writer with an OPEN and so many events stored: its position is one more."""
    writer = HandWriter()
    ingest.commit([writer.batch([writer.open(), *numbers(0, events_)])])
    return writer


# What §8 says of a batch [first, first + count) from position 5, of a writer whose base is 0.
@pytest.mark.parametrize(
    ("first", "count", "answer", "steps"),
    [
        pytest.param(5, 3, (8, False), 7, id="the next one"),
        pytest.param(3, 5, (8, False), 7, id="partly stored already"),
        pytest.param(1, 4, (5, False), 4, id="wholly stored already"),
        pytest.param(6, 2, (5, True), 4, id="a gap"),
    ],
)
def test_a_batch_is_taken_from_the_position_on(
    store: Store, ingest: Ingest, first: int, count: int, answer: tuple[int, bool], steps: int
) -> None:
    writer = _opened(ingest)
    done = ingest.commit([writer.batch(numbers(first - 1, first - 1 + count), first=first)])
    assert _answer(done, writer) == answer
    assert _steps(store) == list(range(steps))


def test_records_that_the_writer_no_longer_has_are_noted_as_a_gap(store: Store, ingest: Ingest) -> None:
    writer = _opened(ingest)
    done = ingest.commit([writer.batch([writer.open(), number(9)], first=9, base=9)])
    assert _answer(done, writer) == (11, False)
    assert _steps(store) == [0, 1, 2, 3, 9]
    assert _rows(store, "SELECT body FROM events WHERE kind = 'gap'") == [('{"from": 5, "to": 9}',)]


def test_a_writer_that_is_unknown_must_begin_with_what_it_has(ingest: Ingest) -> None:
    writer = HandWriter()
    done = ingest.commit([writer.batch(numbers(4, 6), first=5)])
    assert _answer(done, writer) == (0, True)


def test_a_writer_whose_beginning_another_collector_has_begins_with_a_gap(store: Store, ingest: Ingest) -> None:
    writer = HandWriter()
    done = ingest.commit([writer.batch([writer.open(), number(100)], first=100, base=100)])
    assert _answer(done, writer) == (102, False)
    assert _kinds(store) == ["opened", "gap"]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(number(0), id="no OPEN"),
        pytest.param(events.pack(Kind.OPEN, T0_NS, {"run": "r"}), id="an incomplete identity"),
        pytest.param(HandWriter(host="h" * 2000).open(), id="a host of 2,000 letters"),
        pytest.param(HandWriter(run="../../etc").open(), id="a run that is no name"),
    ],
)
def test_a_writer_that_does_not_say_who_it_is_is_refused(store: Store, ingest: Ingest, payload: bytes) -> None:
    writer = HandWriter()
    done = ingest.commit([writer.batch([payload])])
    assert isinstance(done.answers[writer.name], Refused)
    assert _rows(store, "SELECT * FROM writers") == []


def test_several_batches_of_a_commit_follow_each_other(store: Store, ingest: Ingest) -> None:
    writer = HandWriter()
    batches = [
        writer.batch([writer.open(), *numbers(0, 3)]),
        writer.batch(numbers(3, 6)),
        writer.batch(numbers(6, 9)),
    ]
    # In the wrong order, as after a reconnect: the second comes after the third, and then both again.
    done = ingest.commit([batches[0], batches[2], batches[1], batches[2]])
    assert _answer(done, writer) == (10, False)
    assert _steps(store) == list(range(9))


def test_a_gap_is_asked_for_once_and_not_by_each_batch_behind_it(ingest: Ingest) -> None:
    writer = _opened(ingest)
    assert _answer(ingest.commit([writer.batch([number(9)], first=9)]), writer) == (5, True)
    assert _answer(ingest.commit([writer.batch([number(10)], first=10)]), writer) == (5, False)


def test_a_broken_record_is_asked_for_again_and_passed_over_the_third_time(store: Store, ingest: Ingest) -> None:
    writer = _opened(ingest)
    good, broken = records.frame(number(4)), bytearray(records.frame(number(5)))
    broken[-1] ^= 1
    payloads = [number(4), number(5), number(6)]
    batch = writer.batch(payloads, first=5, body=good + bytes(broken) + records.frame(number(6)))
    again = writer.batch(payloads[1:], first=6, body=bytes(broken) + records.frame(number(6)))
    assert _answer(ingest.commit([batch]), writer) == (6, True)
    assert ingest.commit([again]).answers
    assert _answer(ingest.commit([again]), writer) == (7, True)
    assert _rows(store, "SELECT body FROM events WHERE kind = 'broken'") == [('{"seq": 6}',)]
    ingest.commit([writer.batch([number(6)], first=7)])
    assert _steps(store) == [0, 1, 2, 3, 4, 6]


@pytest.mark.parametrize(
    "payload",
    [
        events.pack(Kind.METRICS, T0_NS, 1, 77, b"\0" * 8),
        events.pack(Kind.METRICS, T0_NS, "one", 0, b""),
        events.pack(Kind.KEYSET, T0_NS, 0, ["n" * 2000]),
        events.pack(Kind.KEYSET, T0_NS, -1, ["n"]),
        events.pack(Kind.LOG, T0_NS, 1, ["n"]),
        events.pack(Kind.LOG, T0_NS, 1, {"": 1.0}),
        events.pack(Kind.LOG, T0_NS, 2**63, {"n": 1.0}),
        events.pack(Kind.DROPPED, T0_NS, {"reason": "no number"}),
        events.pack(Kind.DROPPED, T0_NS, {"records": -1}),
        events.pack(Kind.DEFINE, T0_NS, "n", "how"),
        events.pack(Kind.CONFIG, T0_NS, 5),
        events.pack(Kind.CLOSE, T0_NS),
    ],
)
def test_a_record_that_cannot_be_understood_costs_itself_alone(store: Store, ingest: Ingest, payload: bytes) -> None:
    writer = _opened(ingest)
    for _ in range(3):
        ingest.commit([writer.batch([payload, number(4)], first=5)])
    ingest.commit([writer.batch([number(4)], first=6)])
    assert _kinds(store) == ["opened", "broken"]
    assert _steps(store) == [0, 1, 2, 3, 4]
    assert _rows(store, "SELECT count(*) FROM config") == [(0,)]


def test_kinds_of_a_newer_writer_are_kept_as_events(store: Store, ingest: Ingest) -> None:
    writer = _opened(ingest)
    ingest.commit([writer.batch([events.pack(99, T0_NS, "what", 1)])])  # type: ignore[arg-type]  # not yet known
    (body,) = _rows(store, "SELECT body FROM events WHERE kind = 'unknown'")
    assert body == ('{"kind": 99, "fields": ["what", 1]}',)


def test_what_kinds_say_comes_into_their_tables(store: Store, ingest: Ingest) -> None:
    writer = HandWriter()
    text = {"text": "hello", "nan": float("nan"), "yes": True, "big": 2**60}
    done = ingest.commit(
        [
            writer.batch(
                [
                    writer.open(),
                    events.pack(Kind.LOG, T0_NS, 7, text),
                    events.pack(Kind.SYSTEM, T0_NS, 7, {"cpu": 0.5, "name": "no number"}),
                    events.pack(Kind.CONFIG, T0_NS, {"lr": 0.1}),
                    events.pack(Kind.SUMMARY, T0_NS, {"best": float("inf")}),
                    events.pack(Kind.DEFINE, T0_NS, "loss", {"summary": "min"}),
                    events.pack(Kind.DROPPED, T0_NS, {"records": 3, "reason": "full"}),
                    events.pack(Kind.CLOSE, T0_NS, {"exit_code": 0}),
                ]
            )
        ]
    )
    assert _rows(store, "SELECT key, kind FROM series ORDER BY series") == [
        ("nan", "metric"),
        ("yes", "metric"),
        ("big", "metric"),
        ("text", "object"),
        ("cpu", "system"),
    ]
    assert _rows(store, "SELECT body FROM objects") == [('"hello"',)]
    assert _rows(store, "SELECT key, value FROM config") == [("lr", "0.1")]
    assert _rows(store, "SELECT key, value FROM summary") == [("best", '"inf"')]
    assert _rows(store, "SELECT name, step_metric, summary FROM definitions") == [("loss", None, "min")]
    assert _rows(store, "SELECT next_seq, last_step, dropped FROM positions") == [(8, 7, 3)]
    assert _kinds(store) == ["opened", "dropped", "closed", "state"]
    assert [(book.id, end) for book, end in done.closed] == [(writer.name, {"exit_code": 0})]


def test_a_closed_writer_is_still_recognised(store: Store, ingest: Ingest) -> None:
    writer = HandWriter()
    batch = writer.batch([writer.open(), number(0), events.pack(Kind.CLOSE, T0_NS, {})])
    ingest.commit([batch])
    done = ingest.commit([batch], asking=[writer.name])
    assert _answer(done, writer) == (3, False)
    assert (done.closed, _steps(store)) == ([], [0])


def test_asking_is_answered_with_what_is_stored(ingest: Ingest) -> None:
    writer, stranger = _opened(ingest), HandWriter(2)
    done = ingest.commit([], asking=[writer.name, stranger.name])
    assert _answer(done, writer) == (5, False)
    assert _answer(done, stranger) == (0, False)


def _breaking(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the nth transaction from then on fail at its commit, as on a full disk."""
    until = 0
    transaction = store.transaction

    @contextlib.contextmanager
    def failing() -> Generator[duckdb.DuckDBPyConnection]:
        nonlocal until
        with transaction() as connection:
            yield connection
            until -= 1
            if until == 0:
                raise DiskFull(store.path)

    def fail(nth: int) -> None:
        nonlocal until
        until = nth

    monkeypatch.setattr(store, "transaction", failing)
    return fail


def test_a_commit_that_fails_stores_nothing_and_the_same_again_stores_all(
    store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = _breaking(store, monkeypatch)
    one, two = _opened(ingest), HandWriter(2, rank=1, world_size=2)
    batches = [one.batch(numbers(4, 8)), two.batch([two.open(), *numbers(0, 4)])]
    fail(1)
    with pytest.raises(DiskFull):
        ingest.commit(batches)
    assert _steps(store) == [0, 1, 2, 3]
    assert ingest.positions == {one.name: 5}
    done = ingest.commit(batches)
    assert [_answer(done, writer) for writer in (one, two)] == [(9, False), (5, False)]
    assert _rows(store, "SELECT count(*), count(DISTINCT writer) FROM writers") == [(2, 2)]
    assert _rows(store, "SELECT count(*), count(DISTINCT series) FROM series") == [(2, 2)]
    assert _steps(store) == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]


def test_figures_that_cannot_be_stored_undo_no_commit_and_come_with_a_later_one(
    store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = _opened(ingest)
    fail = _breaking(store, monkeypatch)
    closing = writer.batch([events.pack(Kind.CLOSE, T0_NS, {})])
    fail(2)  # the first one stores the events
    done = ingest.commit([closing], ended_runs=[1])
    assert len(done.closed) == 1
    assert _rows(store, "SELECT * FROM series_stats") == []
    ingest.commit([])
    assert _rows(store, "SELECT count, last, last_step FROM series_stats") == [(4, 3.0, 3)]


def test_one_writer_that_meets_a_mistake_of_ours_costs_nobody_else(
    store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, healthy = HandWriter(2), HandWriter(3)
    batch = decode.Decoder.batch

    def mistaken(self: decode.Decoder, book: Any, *rest: Any) -> int:
        if book.id == poisoned.name:
            raise ZeroDivisionError
        return batch(self, book, *rest)

    monkeypatch.setattr(decode.Decoder, "batch", mistaken)
    first = healthy.batch([healthy.open(), *numbers(0, 4)])
    done = ingest.commit([first, poisoned.batch([poisoned.open(), *numbers(0, 4)]), healthy.batch(numbers(4, 8))])
    assert isinstance(done.answers[poisoned.name], Refused)
    assert _answer(done, healthy) == (9, False)
    assert _steps(store) == list(range(8))
    assert _rows(store, "SELECT id FROM writers") == [(healthy.name.hex(),)]


def test_one_writer_that_the_database_chokes_on_costs_nobody_else(
    store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, healthy = HandWriter(2), HandWriter(3)
    write = rows.NewRows.write

    def choking(self: rows.NewRows, connection: duckdb.DuckDBPyConnection) -> None:
        if any(poisoned.name.hex() in row for row in self.writers):
            raise duckdb.ConversionException("no such thing can be stored")
        write(self, connection)

    monkeypatch.setattr(rows.NewRows, "write", choking)
    opened = [writer.batch([writer.open(), *numbers(0, 4)]) for writer in (poisoned, healthy)]
    done = ingest.commit([*opened, healthy.batch(numbers(4, 8))], asking=[b"w" * 16])
    assert isinstance(done.answers[poisoned.name], Refused)
    assert _answer(done, healthy) == (9, False)
    assert (done.events, len(done.opened), len(done.answers)) == (8, 1, 3)
    assert _steps(store) == list(range(8))


@pytest.mark.parametrize("seq", [2**62 + 1, 2**63 - 1])
def test_seqs_beyond_all_use_are_refused(store: Store, ingest: Ingest, seq: int) -> None:
    writer = HandWriter()
    done = ingest.commit([writer.batch([writer.open()], first=seq, base=seq)])
    assert isinstance(done.answers[writer.name], Refused)
    assert _rows(store, "SELECT * FROM writers") == []


def test_drops_without_end_are_counted_as_far_as_numbers_go(store: Store, ingest: Ingest) -> None:
    writer = HandWriter()
    ingest.commit([writer.batch([writer.open(), *[events.pack(Kind.DROPPED, T0_NS, {"records": 2**62})] * 3])])
    assert _rows(store, "SELECT next_seq, dropped FROM positions") == [(4, 2**62)]


def test_a_restart_goes_on_from_what_is_stored(store: Store, ingest: Ingest) -> None:
    writer = HandWriter()
    keyset = events.pack(Kind.KEYSET, T0_NS, 3, ["loss", "acc"])
    ingest.commit([writer.batch([writer.open(), keyset, events.pack_metrics(T0_NS, 0, 3, [1.0, 2.0])])])
    restarted = Ingest(store)
    done = restarted.commit([writer.batch([events.pack_metrics(T0_NS, 1, 3, [3.0, 4.0])])])
    assert _answer(done, writer) == (4, False)
    points = "SELECT key, step, value FROM points JOIN series USING (series) ORDER BY points.rowid"
    assert _rows(store, points) == [("loss", 0, 1.0), ("acc", 0, 2.0), ("loss", 1, 3.0), ("acc", 1, 4.0)]
    assert _rows(store, "SELECT count(*) FROM series") == [(2,)]


def test_runs_attempts_and_writers_are_numbered_by_what_they_say(store: Store, ingest: Ingest) -> None:
    identities = [
        {"run": "a", "launch": "x", "rank": 0},
        {"run": "a", "launch": "x", "rank": 1},
        {"run": "a", "launch": "y", "rank": 0},
        {"run": "b", "launch": "x", "rank": 0},
    ]
    writers = [HandWriter(n, world_size=2, **who) for n, who in enumerate(identities, 1)]
    ingest.commit([writer.batch([writer.open()]) for writer in writers[:3]])
    Ingest(store).commit([writers[3].batch([writers[3].open()])])
    late = HandWriter(9, run="a", launch="x", rank=1, world_size=2, role="child", local_rank=2**40)
    Ingest(store).commit([late.batch([late.open()])])
    found = _rows(store, "SELECT writer, run, attempt, rank, role, local_rank FROM writers ORDER BY writer")
    assert found == [
        (1, 1, 1, 0, "rank", None),
        (2, 1, 1, 1, "rank", None),
        (3, 1, 2, 0, "rank", None),
        (4, 2, 1, 0, "rank", None),
        (5, 1, 1, 1, "child", None),
    ]
    assert _rows(store, "SELECT run, attempt, launch FROM attempts") == [(1, 1, "x"), (1, 2, "y"), (2, 1, "x")]


def test_attempts_are_numbered_by_when_they_began_in_whatever_order_they_come_in(store: Store) -> None:
    # Of the first life's ranks the one that began later comes in first, and both after the second and third life.
    begun = {"third": [30], "second": [21, 22], "first": [12, 11]}
    writers = [
        HandWriter(10 * n + rank, launch=launch, rank=rank, world_size=2, started=T0_NS + started)
        for n, (launch, starts) in enumerate(begun.items(), 1)
        for rank, started in enumerate(starts)
    ]
    ingest = Ingest(store)
    for nth, writer in enumerate(writers):
        if nth == 2:
            ingest = Ingest(store)  # one that reads what was stored
        ingest.commit([writer.batch([writer.open(), number(0)])])
    expected = {"first": 1, "second": 2, "third": 3}
    found = _rows(store, "SELECT DISTINCT identity->>'launch', attempt FROM writers")
    assert dict(found) == expected
    assert len(found) == 3
    attempts = _rows(store, f"SELECT launch, attempt, started_ns - {T0_NS} FROM attempts ORDER BY attempt")
    assert attempts == [("first", 1, 11), ("second", 2, 21), ("third", 3, 30)]
    known = [book.attempt for writer in writers if (book := ingest.book(writer.name)) is not None]
    assert known == [2, 1, 1]


def test_a_launch_that_did_not_say_when_it_began_is_numbered_by_its_first_record(store: Store) -> None:
    later, earlier = HandWriter(1, launch="later"), HandWriter(2, launch="earlier", started=T0_NS - 1)
    for writer in (later, earlier):
        Ingest(store).commit([writer.batch([writer.open()])])
    assert _rows(store, "SELECT launch FROM attempts ORDER BY attempt") == [("earlier",), ("later",)]


def test_a_removed_run_begins_anew_where_its_writer_lives(store: Store, ingest: Ingest) -> None:
    writer = _opened(ingest)
    ingest.forget_run(1)
    store.remove_run(1)
    assert ingest.positions == {}
    done = ingest.commit([writer.batch([number(4)])])
    assert _answer(done, writer) == (0, True)
    ingest.commit([writer.batch([writer.open(), *numbers(0, 5)], first=0)])
    assert _steps(store) == [0, 1, 2, 3, 4]


def test_states_are_stored_with_their_events(store: Store, ingest: Ingest) -> None:
    _opened(ingest)
    ingest.commit([], notes=[StateNote(1, 1, T0_NS, "dead", {"signal": "SIGKILL"})])
    assert _rows(store, "SELECT writer, since_ns, state, detail FROM states ORDER BY rowid") == [
        (1, T0_NS, "running", "{}"),
        (1, T0_NS, "dead", '{"signal": "SIGKILL"}'),
    ]
    assert _kinds(store) == ["opened", "state"]


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ({}, "finished"),
        ({"exit_code": 0}, "finished"),
        ({"exit_code": 3}, "failed"),
        ({"exit_code": "three", "exception": "none"}, "failed"),
        ({"exit_code": None, "exception": {"type": "ValueError", "message": "m"}}, "failed"),
    ],
)
def test_how_a_writer_closed_is_stored_with_its_last_record(
    store: Store, ingest: Ingest, end: dict[str, Any], state: str
) -> None:
    writer = HandWriter()
    ingest.commit([writer.batch([writer.open(), events.pack(Kind.CLOSE, T0_NS, end)])])
    assert _rows(store, "SELECT state FROM states ORDER BY rowid") == [("running",), (state,)]


def test_events_of_many_writers_stay_in_the_order_of_each(store: Store, ingest: Ingest) -> None:
    writers = [HandWriter(n, rank=n, world_size=8) for n in range(8)]
    batches: list[Batch] = [writer.batch([writer.open(), *numbers(0, 10)]) for writer in writers]
    batches += [writer.batch(numbers(10, 40)) for writer in reversed(writers)]
    ingest.commit(batches)
    for series in range(1, 9):
        steps = _rows(store, f"SELECT step FROM points WHERE series = {series} ORDER BY rowid")
        assert [step for (step,) in steps] == list(range(40))


def test_the_database_of_another_life_is_another_instance(tmp_path: Path) -> None:
    answers: list[Ack | Refused] = []
    for name in ("one", "two"):
        with Store.open(tmp_path / name) as store:
            answers.append(Ingest(store).commit([], asking=[b"w" * 16]).answers[b"w" * 16])
    one, two = answers
    assert isinstance(one, Ack)
    assert isinstance(two, Ack)
    assert one.collector != two.collector
