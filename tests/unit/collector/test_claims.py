"""Claims: two that live at one rank are told once, who takes over is not, and worlds are compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from allranks_collector.claims import OTHER_S, SAME_S, SHRUNK, WORLD, Claim, Places, claimed_twice, world_told

_S = 1_000_000_000


def _claim(
    writer: int, *, rank: int = 3, launch: str = "l-1", process: int | None = None, since_s: float = 0.0
) -> Claim:
    pid = 100 + (writer if process is None else process)
    return Claim(writer, 1, rank, launch, f"h{writer}", pid, pid, round(since_s * _S))


def _told(places: Places, **heard_s: float) -> list[list[int]]:
    """The writers of each company; `w1=5.0` says that writer 1 was heard at second 5."""
    heard = {int(name[1:]): round(at * _S) for name, at in heard_s.items()}
    return [[claim.writer for claim in claims] for claims in places.look(heard.get)]


def test_two_that_are_both_heard_a_while_after_the_second_came_are_told_once() -> None:
    places = Places()
    places.come(_claim(1))
    places.come(_claim(2, since_s=10.0))
    assert _told(places, w1=12.0, w2=12.0) == []
    assert _told(places, w1=10.0 + SAME_S, w2=10.0 + SAME_S) == [[1, 2]]
    assert _told(places, w1=20.0, w2=20.0) == []


def test_who_takes_the_place_of_one_that_is_heard_no_more_is_not_told() -> None:
    places = Places()
    places.come(_claim(1))
    places.come(_claim(2, since_s=10.0))
    assert _told(places, w1=11.0, w2=60.0) == []
    assert _told(places, w2=60.0) == []


def test_a_spool_that_is_brought_in_late_is_not_told() -> None:
    places = Places()
    places.come(_claim(1))
    places.come(_claim(2, since_s=10.0))
    assert _told(places, w1=60.0, w2=10.0) == []


def test_a_launcher_has_its_time_to_end_the_attempt_before() -> None:
    places = Places()
    places.come(_claim(1))
    places.come(_claim(2, launch="l-2", since_s=10.0))
    assert _told(places, w1=10.0 + OTHER_S / 2, w2=10.0 + OTHER_S / 2) == []
    assert _told(places, w1=10.0 + OTHER_S, w2=10.0 + OTHER_S) == [[1, 2]]


def test_a_third_is_told_with_those_that_live() -> None:
    places = Places()
    places.come(_claim(1))
    places.come(_claim(2))
    assert _told(places, w1=9.0, w2=9.0) == [[1, 2]]
    places.leave(1, 3, 1)
    places.come(_claim(3, since_s=10.0))
    assert _told(places, w2=19.0, w3=19.0) == [[2, 3]]


def test_one_process_and_other_ranks_are_no_company() -> None:
    places = Places()
    places.come(_claim(1, process=1))
    places.come(_claim(2, process=1))
    places.come(_claim(3, rank=4))
    assert _told(places, w1=99.0, w2=99.0, w3=99.0) == []


def test_a_command_and_its_wrapper_are_no_company() -> None:
    places = Places()
    wrapper = replace(_claim(1), own=(101, 7), host="h")
    command = replace(_claim(2), own=(102, 9), wrapper=(101, 7), host="h")
    places.come(wrapper)
    places.come(command)
    assert _told(places, w1=99.0, w2=99.0) == []
    another = replace(_claim(3), own=(103, 9), wrapper=(50, 7), host="h")
    places.come(another)
    assert _told(places, w1=99.0, w2=99.0, w3=99.0) == [[1, 2, 3]]
    ((_, told),) = claimed_twice([[wrapper, command, another]])
    assert told["rivals"] == [3]


def test_a_program_that_is_alone_may_have_started_the_ranks_of_a_world() -> None:
    places = Places()
    places.come(_claim(1))
    places.come(replace(_claim(2), world_size=4))
    assert _told(places, w1=99.0, w2=99.0) == []


def test_what_was_told_before_a_restart_is_not_told_again() -> None:
    places = Places()
    places.come(_claim(1), is_told=True)
    places.come(_claim(2), is_told=True)
    assert _told(places, w1=99.0, w2=99.0) == []


def test_who_came_first_keeps_the_place_and_attempts_are_no_rivals() -> None:
    ((claim, told),) = claimed_twice([[_claim(1), _claim(2), _claim(3, launch="l-2")]])
    assert claim.writer == 3
    assert told["rivals"] == [2]
    assert told["text"] == (
        "rank 3 is claimed by 3 processes at once, of different attempts: pid 101 on h1, pid 102 on h2, pid 103 on h3"
    )


def test_a_run_that_is_started_twice_is_one_event() -> None:
    companies = [[_claim(rank, rank=rank), _claim(100 + rank, rank=rank)] for rank in range(64)]
    ((_, told),) = claimed_twice(companies)
    assert told["text"] == (
        "64 ranks are claimed by several processes each (0-63):"
        " rank 0 by 2 processes at once: pid 100 on h0, pid 200 on h100"
    )
    assert told["rivals"] == [100 + rank for rank in range(64)]
    assert len(list(claimed_twice(companies[:3]))) == 3


@pytest.mark.parametrize(
    ("worlds", "size", "kind", "text"),
    [
        ({}, 8, None, ""),
        ({"b": {8}}, 8, None, ""),
        ({"b": {8}}, 6, WORLD, "ranks do not agree on the world's size: rank 5 says 6, others say 8"),
        ({"a": {8}}, 8, None, ""),
        ({"a": {8}}, 6, SHRUNK, "attempt 2 has a world of 6, attempt 1 had one of 8"),
        ({"a": {6}}, 8, SHRUNK, "attempt 2 has a world of 8, attempt 1 had one of 6"),
        ({"a": {8, 6}}, 4, SHRUNK, "attempt 2 has a world of 4, attempt 1 had one of 6 or 8"),
        ({"a": {8, 6}}, 6, None, ""),
        ({"b": {1}}, 8, None, ""),  # the program that started the ranks
        ({"b": {8}}, 1, None, ""),
        ({"a": {1}}, 8, None, ""),
        ({"c": {4}}, 8, None, ""),  # what comes in late of an older attempt says nothing of a newer one
    ],
)
def test_worlds_are_compared_within_an_attempt_and_with_the_one_before(
    worlds: dict[str, set[int]], size: int, kind: str | None, text: str
) -> None:
    told = world_told(worlds, {"a": 1, "b": 2, "c": 3}, "b", 5, size)
    assert (None if told is None else (told[0], told[1]["text"])) == (None if kind is None else (kind, text))
