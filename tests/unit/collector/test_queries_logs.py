"""Lines of many ranks are one text, by time: read as pages from any place, searched, or as they come in."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from allranks_collector.queries import (
    BadQuery,
    LineOrders,
    LogRequest,
    TooManyLines,
    find_run,
    line_order,
    list_logs,
    logs,
)
from allranks_collector.testing import T0_NS, DatabaseBuilder

if TYPE_CHECKING:
    import duckdb

T0 = T0_NS / 1e9
STDERR = 2
NOTE = 0


def _ask(cursor: duckdb.DuckDBPyConnection, **wanted: Any) -> dict[str, Any]:
    return list_logs(cursor, find_run(cursor, "run-1"), LogRequest(**wanted))


def _texts(answer: dict[str, Any]) -> list[str]:
    return [line["text"] for line in answer["lines"]]


@pytest.fixture
def ranks(build: DatabaseBuilder) -> list[int]:
    """The tees of two ranks, in the newest of two attempts."""
    run = build.run(attempts=2)
    return [build.writer(run, rank, attempt=2, role="console", host=f"host-{rank}") for rank in range(2)]


def test_lines_are_merged_by_time(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    build.line(ranks[0], "a", second=1)
    build.line(ranks[0], "c", second=3)
    build.line(ranks[1], "b", second=2, stream=STDERR, line=7)
    answer = _ask(cursor)
    assert _texts(answer) == ["a", "b", "c"]
    assert answer["lines"][1] == {
        "number": 3,
        "time": T0 + 2,
        "rank": 1,
        "attempt": 2,
        "host": "host-1",
        "stream": "stderr",
        "line": 7,
        "text": "b",
        "open": False,
    }


def test_of_a_moment_the_order_of_arrival_counts(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    for text in "dbca":
        build.line(ranks[0], text)
    assert _texts(_ask(cursor)) == list("dbca")


def test_the_newest_are_asked_for_by_their_number(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    for second in range(10):
        build.line(ranks[second % 2], str(second), second=second)
    assert _texts(_ask(cursor, limit=3)) == ["7", "8", "9"]


def test_all_is_read_page_by_page(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    for second in (5, 1, 1, 4, 2, 3, 1):
        build.line(ranks[0], str(second), second=second)
    build.open_line(ranks[0], "at the end")
    pages: list[list[str]] = []
    after: str | None = "0"
    while after is not None:
        answer = _ask(cursor, after=after, limit=3)
        pages.append(_texts(answer))
        after = answer["next"]
    assert pages == [["1", "1", "1"], ["2", "3", "4"], ["5", "at the end"]]


def test_a_page_that_ends_with_the_last_line_is_the_last(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    build.line(ranks[0], "a")
    assert _ask(cursor, after="0", limit=1)["next"] is None


def test_who_follows_gets_what_came_late_too(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    build.line(ranks[0], "now", second=100)
    newest = _ask(cursor)["newest"]
    build.line(ranks[1], "from the spool of a dead rank", second=2)
    build.line(ranks[0], "next", second=101)
    answer = _ask(cursor, since=newest, limit=1)
    assert _texts(answer) == ["from the spool of a dead rank"]
    answer = _ask(cursor, since=answer["newest"], limit=1)
    assert _texts(answer) == ["next"]
    answer = _ask(cursor, since=answer["newest"], limit=1)
    assert _texts(answer) == []


def test_a_line_that_has_not_ended_is_shown_as_it_stands(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    build.line(ranks[0], "epoch 1", second=1)
    build.open_line(ranks[0], "50 % caf", line=1, second=2)
    build.open_line(ranks[1], "", line=9, second=3)
    assert [(line["text"], line["open"]) for line in _ask(cursor)["lines"]] == [
        ("epoch 1", False),
        ("50 % caf", True),
    ]


def test_only_what_is_asked_for(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]) -> None:
    first = build.writer(1, 0, attempt=1, role="console")
    build.line(first, "first life", second=0)
    build.line(ranks[0], "out 0", second=1)
    build.line(ranks[1], "err 1", second=2, stream=STDERR)
    build.open_line(ranks[1], "open 1", second=3)
    other = build.writer(build.run("other"), role="console")
    build.line(other, "another run")
    assert _texts(_ask(cursor)) == ["out 0", "err 1", "open 1"]
    assert _texts(_ask(cursor, ranks=[1])) == ["err 1", "open 1"]
    assert _texts(_ask(cursor, stream="stderr")) == ["err 1"]
    assert _texts(_ask(cursor, attempt=1)) == ["first life"]
    assert _texts(_ask(cursor, attempt="all")) == ["first life", "out 0", "err 1", "open 1"]
    assert _texts(_ask(cursor, ranks=[5])) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"limit": 0},
        {"limit": 10_001},
        {"stream": "stdin"},
        {"after": "x"},
        {"after": "1.2.3"},
        {"after": "9223372036854775808"},
        {"before": "0.9223372036854775808"},
        {"after": "0", "since": 1},
        {"offset": 0, "step": 3},
        {"offset": -1},
        {"at": 2**63},
        {"step": 2**63},
        {"begin": float("nan")},
        {"end": 1e300},
        {"begin": 5.0, "end": 5.0},
    ],
)
def test_what_makes_no_sense_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(BadQuery):
        LogRequest(**wanted)


def test_a_line_is_found_by_an_expression_whatever_its_colours(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    build.line(ranks[0], "\x1b[31mCUDA\x1b[0m error 700", second=1)
    build.line(ranks[0], "all is well [31m", second=2)
    build.open_line(ranks[1], "cuda", second=3)
    build.open_line(ranks[1], "well", second=3)
    answer = _ask(cursor, grep="(?i)^cuda")
    assert _texts(answer) == ["\x1b[31mCUDA\x1b[0m error 700", "cuda"]
    assert _texts(_ask(cursor, grep=r"\[31m")) == ["all is well [31m"]
    assert len(_texts(_ask(cursor, grep=""))) == 4


@pytest.mark.parametrize("pattern", ["(", "*", "(?<=a)b", "a{2000}", "\\"])
def test_what_is_no_expression_is_refused_with_the_reason(
    cursor: duckdb.DuckDBPyConnection, ranks: list[int], pattern: str
) -> None:
    assert ranks
    with pytest.raises(BadQuery, match="a regular expression as RE2 takes it"):
        _ask(cursor, grep=pattern)


def test_a_span_of_time_has_its_beginning_and_not_its_end(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    for second in (0, 1.3, 2.7, 3):
        build.line(ranks[0], str(second), second=second)
    build.open_line(ranks[0], "open", second=2)
    times = [line["time"] for line in _ask(cursor)["lines"]]
    assert _texts(_ask(cursor, begin=times[1], end=times[2])) == ["1.3", "open"]
    assert _texts(_ask(cursor, begin=times[2])) == ["2.7", "3"]
    assert _texts(_ask(cursor, end=times[1])) == ["0"]


def test_a_note_stands_in_each_stream(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    build.line(ranks[0], "out", second=1)
    build.line(ranks[0], "[3 lines (9 B) were not kept: rate]", second=2, stream=NOTE)
    build.line(ranks[0], "err", second=3, stream=STDERR)
    assert [line["stream"] for line in _ask(cursor)["lines"]] == ["stdout", "note", "stderr"]
    assert [line["stream"] for line in _ask(cursor, stream="stderr")["lines"]] == ["note", "stderr"]


def test_what_one_rank_alone_printed_is_odd(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    for rank, writer in enumerate(ranks):
        build.line(writer, f"step {rank} loss -{rank}.25e-7", second=rank)
        build.line(writer, "\x1b[1mhello\x1b[0m" if rank else "hello", second=rank, stream=1 + rank)
    build.line(ranks[1], "alone", second=3)
    build.line(ranks[1], "alone", second=4)
    build.open_line(ranks[0], "step 77 loss 3", second=5)
    build.open_line(ranks[0], "both 1", second=5, stream=STDERR)
    build.open_line(ranks[1], "both 2", second=5)
    build.open_line(ranks[0], "open alone", second=5, line=1)
    assert _texts(_ask(cursor, odd=True)) == ["alone", "alone", "open alone"]
    assert _texts(_ask(cursor, odd=True, ranks=[0])) == ["open alone"]  # compared with all, whoever is shown
    assert _texts(_ask(cursor, odd=True, limit=1)) == ["alone", "open alone"]


def test_what_another_rank_says_later_is_odd_no_more(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    orders = LineOrders()

    def odd() -> list[str]:
        return _texts(list_logs(cursor, find_run(cursor, "run-1"), LogRequest(odd=True), orders))

    build.line(ranks[0], "a", second=1)
    build.line(ranks[0], "b", second=2)
    assert odd() == ["a", "b"]
    build.line(ranks[1], "a", second=3)
    build.line(ranks[1], "c", second=0)
    assert odd() == ["c", "b"]


def test_pages_lead_back_and_forth(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    for second in (5, 1, 1, 4, 2, 3, 1):
        build.line(ranks[0], str(second), second=second)
    build.open_line(ranks[0], "open")
    for grep in (None, "."):  # as the database tells it, and as it is known
        answer = _ask(cursor, limit=3, grep=grep)
        assert (_texts(answer), answer["next"]) == (["3", "4", "5", "open"], None)
        answer = _ask(cursor, limit=3, before=answer["previous"], grep=grep)
        assert _texts(answer) == ["1", "1", "2"]
        forth = answer["next"]
        answer = _ask(cursor, limit=3, before=answer["previous"], grep=grep)
        assert (_texts(answer), answer["previous"]) == (["1"], None)
        answer = _ask(cursor, limit=2, after=forth, grep=grep)
        assert _texts(answer) == ["3", "4"]
        assert _texts(_ask(cursor, limit=1, before=answer["previous"], grep=grep)) == ["2"]


def test_where_nothing_is_the_way_back_is_told(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    for second in range(2):
        build.line(ranks[0], str(second), second=second)
    end = f"{T0_NS + 10**10}.1"
    for grep in (None, "."):
        beyond = _ask(cursor, after=end, grep=grep)
        assert (_texts(beyond), beyond["next"]) == ([], None)
        assert _texts(_ask(cursor, before=beyond["previous"], grep=grep)) == ["0", "1"]
        at_first = _ask(cursor, before="0", grep=grep)
        assert (_texts(at_first), at_first["previous"]) == ([], None)
        assert _texts(_ask(cursor, after=at_first["next"], grep=grep)) == ["0", "1"]
    far = _ask(cursor, offset=7)
    assert (_texts(far), far["offset"], far["next"]) == ([], 7, None)
    assert _texts(_ask(cursor, before=far["previous"])) == ["0", "1"]


def test_a_page_about_a_line(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]) -> None:
    numbers = [build.line(ranks[0], str(second), second=second, stream=1 + second % 2) for second in range(10)]
    build.open_line(ranks[0], "open")
    answer = _ask(cursor, at=numbers[5], limit=4, total=True)
    assert (_texts(answer), answer["offset"], answer["total"]) == (["3", "4", "5", "6"], 3, 10)
    assert (_texts(_ask(cursor, after=answer["next"], limit=1)), answer["previous"] is None) == (["7"], False)
    assert _texts(_ask(cursor, at=numbers[9], limit=4)) == ["6", "7", "8", "9", "open"]
    assert _texts(_ask(cursor, at=numbers[0], limit=4)) == ["0", "1", "2", "3"]
    # One that the filter leaves out still has its place.
    assert _texts(_ask(cursor, at=numbers[5], limit=2, stream="stdout")) == ["4", "6"]
    other = build.line(build.writer(build.run("other"), role="console"), "another run")
    for missing in (other, 999):
        with pytest.raises(BadQuery, match="the number of a line of this run"):
            _ask(cursor, at=missing)


def test_a_page_about_a_step(build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]) -> None:
    for rank in range(2):
        writer = build.writer(1, rank, attempt=2)
        build.points(writer, "loss", [0.0] * 3, steps=[1203, 1204, 1205], seconds=[1, 3 + 4 * rank, 9])
        build.points(writer, "gpu", [0.0], steps=[1204], seconds=[0], kind="system")
    build.object(build.writer(1, 1, attempt=2), "text", "t", step=7, second=5)
    for second in range(10):
        build.line(ranks[0], str(second), second=second)
    assert _texts(_ask(cursor, step=1204, limit=2)) == ["2", "3"]
    assert _texts(_ask(cursor, step=1204, limit=2, ranks=[1])) == []
    build.line(ranks[1], "mine", second=7)
    assert _texts(_ask(cursor, step=1204, limit=2, ranks=[1])) == ["mine"]
    assert _texts(_ask(cursor, step=7, limit=2)) == ["4", "5"]
    for nobody in ({"step": 9}, {"step": 1204, "attempt": 1}, {"step": 7, "ranks": [0]}):
        with pytest.raises(BadQuery, match="a step that one of these ranks has logged"):
            _ask(cursor, **nobody)


def test_what_ranks_print_alike_is_one(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    for rank, writer in enumerate(ranks):
        build.line(writer, "epoch 1", second=rank)
        build.line(writer, f"rank {rank}", second=3 + rank)
    lines = _ask(cursor, fold=True)["lines"]
    assert [(line["text"], line["ranks"], line["count"]) for line in lines] == [
        ("epoch 1", [0, 1], 2),
        ("rank 0", [0], 1),
        ("rank 1", [1], 1),
    ]


def test_pages_are_right_while_lines_come_in(
    build: DatabaseBuilder, cursor: duckdb.DuckDBPyConnection, ranks: list[int]
) -> None:
    """What is kept between questions never makes an answer differ from what a plain sort says."""
    chance = random.Random(1)
    orders, all_lines, run = LineOrders(), list[tuple[int, int, str]](), find_run(cursor, "run-1")

    def ask(**wanted: Any) -> dict[str, Any]:
        return list_logs(cursor, run, LogRequest(**wanted), orders)

    for _ in range(6):
        for _ in range(15):
            second, text = chance.randrange(20), chance.choice("ab")
            all_lines.append((second, build.line(chance.choice(ranks), text, second=second), text))
        for grep in (None, "a"):
            expected = [line for _, line, text in sorted(all_lines) if grep in (None, text)]

            def numbers(answer: dict[str, Any]) -> list[int]:
                return [line["number"] for line in answer["lines"]]

            offset = chance.randrange(len(expected))
            answer = ask(grep=grep, offset=offset, limit=7, total=True)
            assert (numbers(answer), answer["total"]) == (expected[offset : offset + 7], len(expected))
            assert numbers(ask(grep=grep, limit=5)) == expected[-5:]
            assert numbers(ask(grep=grep, after="0")) == expected
            if answer["next"] is not None:
                assert numbers(ask(grep=grep, after=answer["next"])) == expected[offset + 7 :]
            if answer["previous"] is not None:
                assert numbers(ask(grep=grep, before=answer["previous"])) == expected[:offset]
            since = chance.randrange(len(all_lines))
            arrived = ask(grep=grep, since=since, limit=6)
            assert sorted(numbers(arrived)) == sorted(number for number in expected if number > since)[:6]


def test_what_is_kept_is_bounded(
    build: DatabaseBuilder,
    cursor: duckdb.DuckDBPyConnection,
    ranks: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for text in "abc":
        build.line(ranks[0], text)
    monkeypatch.setattr(line_order, "KEPT_LINES", 5)
    orders, run = LineOrders(), find_run(cursor, "run-1")
    for grep in (".", "[ab]", "a", "b", "..", "x"):
        wanted = LogRequest(grep=grep, total=True)
        assert list_logs(cursor, run, wanted, orders) == list_logs(cursor, run, wanted)
        assert orders.kept_lines() <= 5
    monkeypatch.setattr(line_order, "MAX_ORDERED_LINES", 2)
    with pytest.raises(TooManyLines):
        list_logs(cursor, run, LogRequest(total=True), LineOrders())
    assert _texts(_ask(cursor)) == ["a", "b", "c"]


def test_of_long_lines_fewer_come_at_once_and_none_is_left_out(
    build: DatabaseBuilder,
    cursor: duckdb.DuckDBPyConnection,
    ranks: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for second in range(10):
        build.line(ranks[0], f"{second} {'ä' * 100}", second=second)
    monkeypatch.setattr(logs, "MAX_PAGE_BYTES", 600)

    def firsts(answer: dict[str, Any]) -> str:
        return "".join(text[0] for text in _texts(answer))

    whole, after = "", _ask(cursor, after="0", limit=9)
    while after["next"] is not None:
        whole += firsts(after)
        after = _ask(cursor, after=after["next"], limit=9)
    assert whole + firsts(after) == "0123456789"
    back = _ask(cursor, limit=9)
    assert firsts(back) + firsts(_ask(cursor, before=back["previous"], limit=2)) == "8967"
    whole, newest = "", 0
    while firsts(since := _ask(cursor, since=newest, limit=9)):
        whole, newest = whole + firsts(since), since["newest"]
    assert whole == "0123456789"
    for place in range(10):
        assert str(place) in firsts(_ask(cursor, at=place + 1, limit=9))
    monkeypatch.setattr(logs, "MAX_PAGE_BYTES", 10)
    assert firsts(_ask(cursor, offset=3, limit=9)) == "3"


def test_a_run_that_takes_the_place_of_a_removed_one_has_its_own_lines(build: DatabaseBuilder) -> None:
    orders = LineOrders()

    def texts() -> list[str]:
        with build.store.cursor() as cursor:
            run = find_run(cursor, "run-1")
            return _texts(list_logs(cursor, run, LogRequest(total=True, grep="."), orders))

    build.line(build.writer(build.run(), role="console"), "old")
    assert texts() == ["old"]
    build.store.remove_run(1)
    again = DatabaseBuilder(build.store)  # gives out the same numbers
    again.line(again.writer(again.run(created_s=9), role="console"), "new")
    assert texts() == ["new"]
