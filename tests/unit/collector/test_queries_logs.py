"""Lines of many ranks are one text, by time: read as pages, from their end, or as they come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allranks_collector.queries import BadQuery, LogRequest, find_run, list_logs
from allranks_collector.testing import T0_NS, DatabaseBuilder

if TYPE_CHECKING:
    import duckdb

T0 = T0_NS / 1e9
STDERR = 2


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
        {"after": "0", "since": 1},
    ],
)
def test_what_makes_no_sense_is_refused(wanted: dict[str, Any]) -> None:
    with pytest.raises(BadQuery):
        LogRequest(**wanted)
