"""What ranks print is stored as lines, in the transaction that moves their tees' positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.writers import T0_NS, HandWriter, number, numbers

from allranks_bus import events
from allranks_bus.events import Kind
from allranks_collector.ingest import Ingest
from allranks_collector.store import DiskFull, Store

STDOUT, STDERR = 1, 2
_Lines = list[tuple[int, int, int, str]]
_CLOSED = events.pack(Kind.CLOSE, T0_NS, {"exit_code": 0, "exception": None})


@pytest.fixture
def ingest(store: Store) -> Ingest:
    return Ingest(store)


def _printed(text: str | bytes, stream: int = STDOUT, second: int = 0) -> bytes:
    chunk = text.encode() if isinstance(text, str) else text
    return events.pack(Kind.CONSOLE, T0_NS + second * 10**9, stream, chunk)


def _tee(number: int = 2, **identity: Any) -> HandWriter:
    return HandWriter(number, role="console", **{"parent": bytes(16), "implied": True, **identity})


def _lines(store: Store) -> _Lines:
    with store.cursor() as cursor:
        rows = cursor.execute("SELECT writer, stream, line, text FROM lines ORDER BY number").fetchall()
        numbers = cursor.execute("SELECT number FROM lines ORDER BY rowid").fetchall()
    assert numbers == [(at,) for at in range(1, len(numbers) + 1)]
    return rows


def _rows(store: Store, statement: str) -> list[tuple[Any, ...]]:
    with store.cursor() as cursor:
        return cursor.execute(statement).fetchall()


def test_chunks_become_lines_of_their_streams(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    payloads = [tee.open(), _printed("one\ntwo\nth"), _printed("oops\n", STDERR), _printed("ree\n", second=1)]
    done = ingest.commit([tee.batch(payloads)])
    assert done.printed == {"run-1"}
    assert _lines(store) == [(1, 1, 0, "one"), (1, 1, 1, "two"), (1, 2, 0, "oops"), (1, 1, 2, "three")]
    assert _rows(store, "SELECT time_ns FROM lines WHERE text = 'three'") == [(T0_NS + 10**9,)]


def test_an_open_line_goes_on_after_the_collector_has_been_started_again(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    ingest.commit([tee.batch([tee.open(), _printed("done\n50%\r6"), _printed(b"caf\xc3", STDERR)])])
    assert _rows(store, "SELECT stream, line, text FROM open_lines ORDER BY stream") == [
        (STDOUT, 1, "60%"),
        (STDERR, 0, "caf"),
    ]
    Ingest(store).commit([tee.batch([_printed("9\n"), _printed(b"\xa9\n", STDERR)])])
    assert _lines(store) == [(1, 1, 0, "done"), (1, 1, 1, "69%"), (1, 2, 0, "café")]
    assert _rows(store, "FROM open_lines") == []


def test_last_lines_do_not_bring_back_a_run_that_was_removed_after_its_end(store: Store, ingest: Ingest) -> None:
    rank, tee = HandWriter(1), _tee()
    ingest.commit([rank.batch([rank.open(), _CLOSED]), tee.batch([tee.open(), _printed("one\n")])], ended_runs=[1])
    ingest.forget_run(1)
    store.remove_run(1)
    late = tee.batch([_printed("two\n")])
    done = ingest.commit([late])
    assert done.answers[late.writer].next_seq == late.first_seq + late.count  # type: ignore[union-attr]
    assert _rows(store, "FROM runs") == _rows(store, "FROM lines") == []


def test_a_batch_that_comes_again_prints_nothing_twice(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    batch = tee.batch([tee.open(), _printed("one\nha")])
    ingest.commit([batch, batch])
    Ingest(store).commit([batch, tee.batch([_printed("lf\n")])])
    assert _lines(store) == [(1, 1, 0, "one"), (1, 1, 1, "half")]


def test_after_a_commit_that_failed_lines_are_neither_lost_nor_double(
    store: Store, ingest: Ingest, monkeypatch: pytest.MonkeyPatch
) -> None:
    tee = _tee()
    ingest.commit([tee.batch([tee.open(), _printed("be")])])
    batch = tee.batch([_printed("gun\nand ")])
    with monkeypatch.context() as patch:
        patch.setattr("allranks_collector.ingest._move_positions", _fail)
        with pytest.raises(DiskFull):
            ingest.commit([batch])
    ingest.commit([batch])
    ingest.commit([tee.batch([_printed("ended\n")])])
    assert [text for *_, text in _lines(store)] == ["begun", "and ended"]


def _fail(*_: object) -> None:
    raise DiskFull(Path("store.duckdb"))


def test_a_tee_is_no_rank(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    close = events.pack(Kind.CLOSE, T0_NS, {})
    done = ingest.commit([tee.batch([tee.open(), _printed("x\n"), close])])
    assert (done.opened, done.closed, done.touched, done.steps) == ([], [], {}, {})
    assert _rows(store, "FROM states") == _rows(store, "FROM events") == []
    assert _rows(store, "SELECT role FROM writers") == [("console",)]


@pytest.mark.parametrize(
    ("lost", "note"),
    [
        ({"bytes": 70_000, "reason": "No space left\non device"}, "70.0 kB were not kept: No space left on device"),
        ({"bytes": 1_234_567, "lines": 12_345, "reason": "x"}, "12,345 lines (1.2 MB) were not kept: x"),
        ({"bytes": 12, "lines": 1}, "1 line (12 bytes) was not kept"),
        ({"bytes": "many", "lines": -1, "reason": ""}, "3 records were not kept"),
    ],
)
def test_what_a_tee_lost_is_told_in_its_place(store: Store, ingest: Ingest, lost: dict[str, Any], note: str) -> None:
    tee = _tee()
    dropped = events.pack(Kind.DROPPED, T0_NS, {"records": 3, **lost})
    ingest.commit([tee.batch([tee.open(), _printed("before\nha"), dropped, _printed("rest\n")])])
    assert _lines(store) == [(1, 1, 0, "before"), (1, 1, 1, "ha"), (1, 0, 0, f"[{note}]"), (1, 1, 2, "rest")]
    assert _rows(store, "SELECT kind, (body->>'records')::INTEGER FROM events") == [("dropped", 3)]


def test_where_no_end_of_a_line_was_lost_the_line_goes_on(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    dropped = events.pack(Kind.DROPPED, T0_NS, {"records": 1, "bytes": 10, "lines": 0, "reason": "x"})
    ingest.commit([tee.batch([tee.open(), _printed("\r10%"), dropped, _printed("\r90%\n")])])
    assert [text for *_, text in _lines(store)] == ["[10 bytes were not kept: x]", "90%"]


def test_what_a_rank_lost_is_no_line(store: Store, ingest: Ingest) -> None:
    rank = HandWriter(1)
    ingest.commit([rank.batch([rank.open(), events.pack(Kind.DROPPED, T0_NS, {"records": 3, "reason": "x"})])])
    assert _lines(store) == []


_UP = "\x1b[A"


def _open(store: Store) -> list[tuple[int, str]]:
    return _rows(store, "SELECT line, text FROM open_lines ORDER BY line")


def test_the_cursor_takes_lines_back_from_the_database(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    ingest.commit([tee.batch([tee.open(), _printed("a\nb\nc\n")])])
    ingest.commit([tee.batch([_printed(f"d\n{_UP}{_UP}{_UP}\rB", second=1)])])
    assert [text for *_, text in _lines(store)] == ["a"]
    assert _open(store) == [(1, "B"), (2, "c"), (3, "d")]
    Ingest(store).commit([tee.batch([_printed("\n\n\ne\n", second=2)])])
    assert [(line, text) for _, _, line, text in _lines(store)] == [(0, "a"), (1, "B")]
    assert _open(store) == [(2, "c"), (3, "d"), (4, "e")]


def test_two_bars_are_two_lines_that_change(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    ingest.commit([tee.batch([tee.open(), _printed("start\n\r0: 1%\n\r1: 1%" + _UP)])])
    for n in range(2, 30):
        ingest.commit([tee.batch([_printed(f"\r0: {n}%\n\r1: {n}%" + _UP)])])
    assert [text for *_, text in _lines(store)] == ["start"]
    assert _open(store) == [(1, "0: 29%"), (2, "1: 29%")]


def test_when_a_tee_ends_its_open_lines_are_final(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    ingest.commit([tee.batch([tee.open(), _printed(f"0\n1{_UP}\rzero"), _printed("no end", STDERR)])])
    Ingest(store).commit([tee.batch([events.pack(Kind.CLOSE, T0_NS, {})])])
    assert sorted(_lines(store)) == [(1, 1, 0, "zero"), (1, 1, 1, "1"), (1, 2, 0, "no end")]
    assert _rows(store, "FROM open_lines") == _rows(store, "FROM terminals") == []


def test_when_another_tee_takes_over_what_the_first_left_open_is_final(store: Store, ingest: Ingest) -> None:
    first, second, other = _tee(2), _tee(3), _tee(4, parent=b"of a forked child")
    ingest.commit(
        [first.batch([first.open(), _printed("killed in the")]), other.batch([other.open(), _printed("x")])]
    )
    ingest.commit([second.batch([second.open(), _printed("middle")])])
    assert _lines(store) == [(1, 1, 0, "killed in the")]
    ingest.commit([first.batch([_printed("very end\n")])])
    assert _lines(store)[1:] == [(1, 1, 1, "very end")]
    assert _rows(store, "SELECT writer, text FROM open_lines ORDER BY writer") == [
        (2, "x"),
        (3, "middle"),
    ]


def test_with_history_each_state_of_a_bar_is_stored(store: Store) -> None:
    tee = _tee()
    Ingest(store, bar_history=True).commit([tee.batch([tee.open(), _printed("\r1%\r2%"), _printed("\r3%\n")])])
    assert [text for *_, text in _lines(store)] == ["1%", "2%", "3%"]


def test_rows_of_open_lines_are_moved_not_piled_up(store: Store, ingest: Ingest) -> None:
    tee = _tee()
    ingest.commit([tee.batch([tee.open(), _printed("1\n2\n3")])])
    for n in range(23):
        ingest.commit([tee.batch([_printed(f"\r{n}\n{_UP * (n % 3)}")])])
    rows = _rows(store, "SELECT writer, stream, line FROM open_lines ORDER BY line")
    assert len(rows) == len(set(rows))
    assert [line for *_, line in rows] == list(range(rows[0][2], rows[0][2] + len(rows)))
    assert _rows(store, "SELECT count(*) FROM terminals") == [(1,)]


def test_the_run_is_called_as_its_rank_says_though_its_tee_came_first(store: Store, ingest: Ingest) -> None:
    tee, rank = _tee(), HandWriter(1, project="vision", name="best", tags=["a"])
    ingest.commit([tee.batch([tee.open(), _printed("x\n")])])
    ingest.commit([rank.batch([rank.open(), number(0)])])
    assert _rows(store, "SELECT project, name, tags FROM runs") == [("vision", "best", '["a"]')]
    assert _rows(store, "SELECT count(*) FROM attempts") == [(1,)]


@pytest.mark.parametrize("fields", [(3, b"x"), (0, b"x"), (True, "text"), ("1", b"x"), (1,), (1, b"x", 4)])
def test_a_record_that_is_none_is_passed_over_in_the_end(
    store: Store, ingest: Ingest, fields: tuple[Any, ...]
) -> None:
    tee = _tee()
    broken = events.pack(Kind.CONSOLE, T0_NS, *fields)
    ingest.commit([tee.batch([tee.open(), _printed("before\n")])])
    for _ in range(3):
        ingest.commit([tee.batch([broken, _printed("after\n")], first=2)])
    ingest.commit([tee.batch([_printed("after\n")], first=3)])
    assert [text for *_, text in _lines(store)] == ["before", "after"]
    assert _rows(store, "SELECT kind FROM events") == [("broken",)]


def test_lines_and_points_of_many_writers_come_in_one_commit(store: Store, ingest: Ingest) -> None:
    rank, tees = HandWriter(1), [_tee(number) for number in range(2, 12)]
    batches = [tee.batch([tee.open(), *[_printed(f"{tee.name.hex()[-2:]}\n")] * 20]) for tee in tees]
    done = ingest.commit([rank.batch([rank.open(), *numbers(0, 5)]), *batches])
    assert done.points == 5
    found = _lines(store)
    assert [(writer, line) for writer, _, line, _ in found] == [(w, at) for w in range(2, 12) for at in range(20)]
