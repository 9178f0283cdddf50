"""Lines that many ranks print alike become one, and none is lost, invented or counted twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allranks_collector.folding import Folder, fold, fold_stream, origin, ranks_text


def _line(rank: int, text: str, time: float = 0.0, **other: Any) -> dict[str, Any]:
    return {
        "rank": rank,
        "text": text,
        "time": time,
        "attempt": 1,
        "host": "a",
        "stream": "stdout",
        "open": False,
        **other,
    }


def _folded(lines: list[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    return [(line["text"], line["ranks"]) for line in lines]


def test_alike_lines_stand_where_the_first_of_them_stood() -> None:
    lines = [_line(2, "a"), _line(0, "b", 1), _line(1, "a", 2), _line(0, "a", 3)]
    first, second = fold(lines)
    assert first == {**_line(2, "a"), "ranks": [0, 1, 2], "count": 3}
    assert (second["text"], second["ranks"], second["count"]) == ("b", [0], 1)


def test_what_a_rank_says_twice_is_said_twice() -> None:
    lines = [_line(0, "x"), _line(0, "x"), _line(1, "x"), _line(1, "x"), _line(1, "x")]
    assert _folded(fold(lines)) == [("x", [0, 1]), ("x", [0, 1]), ("x", [1])]


@pytest.mark.parametrize(
    "other", [{"stream": "stderr"}, {"attempt": 2}, {"open": True}, {"time": 10.5}, {"text": "x "}]
)
def test_lines_that_differ_in_more_than_their_rank_stay_apart(other: dict[str, Any]) -> None:
    assert len(fold([_line(0, "x"), {**_line(1, "x"), **other}])) == 2


def test_a_rank_that_is_late_belongs_to_those_that_are_near() -> None:
    lines = [_line(0, "x", 0), _line(0, "x", 15), _line(1, "x", 16)]
    assert _folded(fold(lines)) == [("x", [0]), ("x", [0, 1])]


_LINES = st.lists(
    st.builds(_line, st.integers(0, 3), st.sampled_from("ab"), st.integers(0, 40).map(float)), max_size=60
)


@given(lines=_LINES)
def test_every_line_is_counted_once(lines: list[dict[str, Any]]) -> None:
    lines.sort(key=lambda line: line["time"])
    told = fold(lines)
    assert Counter((line["text"], rank) for line in told for rank in line["ranks"]) == Counter(
        (line["text"], line["rank"]) for line in lines
    )
    assert [line["time"] for line in told] == sorted(line["time"] for line in told)
    assert all(len(set(line["ranks"])) == line["count"] for line in told)
    # What is read piece by piece is folded as if it were one page.
    assert list(fold_stream(iter(lines))) == told


def test_a_stream_of_lines_holds_no_more_than_it_may() -> None:
    given_ = 0

    def endless() -> Any:
        nonlocal given_
        while True:
            given_ += 1
            yield _line(0, str(given_))

    told = fold_stream(endless(), most=10)
    assert next(told)["text"] == "1"
    assert given_ == 11


def test_what_has_come_by_then_is_given_back_and_forgotten() -> None:
    folder = Folder()
    folder.add(_line(0, "x"), came=1)
    folder.add(_line(1, "x"), came=2)
    folder.add(_line(0, "y"), came=2)
    assert _folded(list(folder.pop(1))) == [("x", [0, 1])]
    folder.add(_line(2, "x"), came=3)
    assert _folded(list(folder.pop())) == [("y", [0]), ("x", [2])]
    assert not len(folder)


@pytest.mark.parametrize(
    ("ranks", "text"), [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([0, 2, 3, 7], "0,2-3,7"), ([4, 6], "4,6")]
)
def test_ranks_in_short(ranks: list[int], text: str) -> None:
    assert ranks_text(ranks) == text


def test_whose_line_it_is() -> None:
    lines = [_line(rank, "x", host=f"node-{rank}") for rank in range(64)]
    assert origin(lines[3]) == "node-3:3"
    assert origin(fold(lines[5:6])[0]) == "node-5:5"
    assert origin(fold(lines)[0]) == "×64 [0-63]"
