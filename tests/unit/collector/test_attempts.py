"""Where a run's time went: each moment of it in one part, by what its attempts had reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allranks_collector.attempts import SECOND_NS, AttemptFacts, Goodput, account


def facts(
    attempt: int, began_s: float, ended_s: float | None, steps: Sequence[tuple[float, int]], **more: Any
) -> Any:
    """An attempt in seconds; it ended badly, or lives."""
    stalls = [(round(begin * SECOND_NS), round(end * SECOND_NS)) for begin, end in more.pop("stalls", ())]
    return AttemptFacts(
        attempt,
        round(began_s * SECOND_NS),
        None if ended_s is None else round(ended_s * SECOND_NS),
        path=[(round(second * SECOND_NS), step) for second, step in steps],
        stalls=stalls,
        **more,
    )


def parts(goodput: Goodput) -> dict[str, float]:
    """The parts that are not empty, in seconds."""
    named = {name.removesuffix("_ns"): ns / SECOND_NS for name, ns in vars(goodput).items()}
    return {name: seconds for name, seconds in named.items() if seconds}


def test_a_run_that_goes_through_is_productive_after_its_init_until_its_end() -> None:
    one = facts(1, 0, 14, [(4, 0), (5, 1), (9, 5)], is_well=True, last_step=5)
    found = account([one], now_ns=99 * SECOND_NS)
    assert parts(found.goodput) == {"init": 4, "productive": 10}
    assert found.fraction == pytest.approx(10 / 14)
    (lineage,) = found.lineage
    assert (lineage.first_step, lineage.last_step, lineage.resumed_from, lineage.recomputed) == (0, 5, None, 0)


def test_a_restart_costs_detection_the_way_back_and_the_steps_that_are_done_again() -> None:
    """Steps of a second each, a checkpoint at 60; it dies after 100, is found dead 7 s later, and begins again."""
    first = facts(1, 0, 117, [(10 + step, step) for step in range(101)], last_step=100)
    second = facts(2, 150, 250, [(170 + step - 61, step) for step in range(61, 141)], is_well=True, last_step=140)
    found = account([second, first], now_ns=0)
    # 61 … 100 are done again: 39 s after the first of them, which belongs to the init.
    assert parts(found.goodput) == {
        "init": 10 + 20,
        "productive": 100 + 40 + 1,
        "detection": 7,
        "restart": 33,
        "recomputation": 39,
    }
    assert found.goodput.total_ns == 250 * SECOND_NS
    assert [(one.resumed_from, one.recomputed) for one in found.lineage] == [(None, 0), (61, 40)]


def test_what_an_attempt_before_the_last_one_has_reached_counts_too() -> None:
    far = facts(1, 0, 100, [(0, 0), (100, 100)])
    short = facts(2, 100, 120, [(100, 0), (120, 20)])
    third = facts(3, 120, 280, [(120, 20), (280, 180)])
    found = account([far, short, third], now_ns=0)
    assert [one.recomputed for one in found.lineage] == [0, 21, 81]
    assert parts(found.goodput) == {"productive": 180, "recomputation": 100}
    assert [one.resumed_from for one in found.lineage] == [None, None, 20]


def test_the_furthest_rank_of_an_attempt_counts_though_it_is_seen_through_another() -> None:
    first = facts(1, 0, 10, [(0, 0), (10, 10)], last_step=12)
    second = facts(2, 10, 20, [(10, 8), (18, 16)], is_well=True)
    assert [one.recomputed for one in account([first, second], 0).lineage] == [0, 5]


def test_an_attempt_that_goes_back_itself_does_its_steps_again() -> None:
    one = facts(1, 0, 40, [(0, 0), (20, 20), (22, 10), (32, 20), (40, 28)], is_well=True)
    found = account([one], 0)
    assert parts(found.goodput) == {"productive": 28, "recomputation": 12}
    assert found.lineage[0].recomputed == 11


def test_a_stall_is_counted_where_it_went_on_and_where_it_still_stands() -> None:
    went_on = facts(1, 0, 60, [(0, 0), (10, 10), (50, 11), (60, 21)], stalls=[(10, 49), (12, 30)], is_well=True)
    assert parts(account([went_on], 0).goodput) == {"productive": 21, "stalled": 39}
    stands = facts(1, 0, None, [(0, 0), (10, 10)], stalls=[(11, 100)])
    found = account([stands], now_ns=100 * SECOND_NS)
    assert parts(found.goodput) == {"productive": 11, "stalled": 89}


def test_a_stall_that_ended_with_the_attempt_was_lost_to_detection() -> None:
    hung = facts(1, 0, 700, [(0, 0), (100, 100)], stalls=[(100, 700)])
    assert parts(account([hung], 0).goodput) == {"productive": 100, "detection": 600}


def test_an_attempt_without_a_step_is_all_init_and_nothing_is_said_of_its_fraction() -> None:
    found = account([facts(1, 0, 30, []), facts(2, 40, None, [])], now_ns=50 * SECOND_NS)
    assert parts(found.goodput) == {"init": 40, "restart": 10}
    assert found.fraction is None
    assert account([], 0).fraction is None


def test_of_two_attempts_at_once_the_newer_one_counts() -> None:
    older = facts(1, 0, None, [(0, 0), (30, 30)])
    newer = facts(2, 20, None, [(20, 25), (40, 45)])
    found = account([older, newer], now_ns=40 * SECOND_NS)
    assert found.goodput.total_ns == 40 * SECOND_NS


_SECONDS = st.integers(-100, 1000)
_ATTEMPT = st.tuples(
    _SECONDS,
    st.none() | _SECONDS,
    st.lists(st.tuples(_SECONDS, st.integers(0, 50)), max_size=8),
    st.lists(st.tuples(_SECONDS, _SECONDS), max_size=4),
    st.booleans(),
    st.none() | st.integers(0, 60),
)


@settings(max_examples=300)
@given(st.lists(_ATTEMPT, min_size=1, max_size=5), _SECONDS)
def test_the_parts_are_never_negative_and_sum_up_to_the_whole_time(attempts: Any, now_s: int) -> None:
    """Whatever is told: in any order, with ends before beginnings, and clocks that are off."""
    told = [
        facts(number, began, ended, path, stalls=stalls, is_well=well and ended is not None, last_step=last)
        for number, (began, ended, path, stalls, well, last) in enumerate(attempts, 1)
    ]
    found = account(told, now_s * SECOND_NS)
    assert all(ns >= 0 for ns in vars(found.goodput).values())
    begin = told[0].began_ns
    last_began = max(one.began_ns for one in told)
    end = told[-1].ended_ns
    expected_end = max(now_s * SECOND_NS if end is None else end, last_began)
    assert found.goodput.total_ns == expected_end - begin
    assert all(one.recomputed >= 0 for one in found.lineage)
    assert len(found.lineage) == len(told)
