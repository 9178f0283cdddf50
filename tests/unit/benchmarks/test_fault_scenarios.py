"""Which faults are drawn, and when a rank is rightly named."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from benchmarks.fault_scenarios import BY_ITSELF, FROM_OUTSIDE, Named, Scenario, named_by, scenarios
from benchmarks.workers.falling_rank import BREAKS

_HOSTS = ["a", "a", "b", "b", "c", "c", "d", "d"]
_ONE = replace(scenarios(1, 0)[0], fault="kill", victim=2, place="beside")
_NODE = replace(_ONE, fault="lost-node")


def test_the_same_seed_gives_the_same_scenarios() -> None:
    assert scenarios(30, 7) == scenarios(30, 7)
    assert scenarios(30, 7) != scenarios(30, 8)


@pytest.mark.parametrize("seed", range(20))
def test_every_fault_has_its_share_and_none_breaks_the_host_of_the_collector(seed: int) -> None:
    chosen = scenarios(30, seed)
    counts = Counter(each.fault for each in chosen)
    assert set(counts) == {*BY_ITSELF, *FROM_OUTSIDE}
    assert max(counts.values()) - min(counts.values()) <= 1
    lost = [each for each in chosen if each.fault in ("lost-node", "cut-link")]
    assert all(each.hosts[each.victim] != 0 for each in lost)


def test_a_rank_can_break_itself_in_each_way_that_is_its_own() -> None:
    assert set(BREAKS) == set(BY_ITSELF)


@pytest.mark.parametrize(
    ("scenario", "named", "is_right", "is_wrong_host"),
    [
        (_ONE, Named(2, "b"), True, False),
        (_ONE, Named(3, "b"), False, False),
        (_ONE, Named(5, "c"), False, True),
        (_ONE, Named(2, "c"), False, True),
        (_ONE, Named(None, None), False, False),
        (_NODE, Named(3, "b"), True, False),
        (_NODE, Named(1, "a"), False, True),
    ],
)
def test_who_is_named_is_right_or_not(scenario: Scenario, named: Named, is_right: bool, is_wrong_host: bool) -> None:
    assert named.is_right(scenario, _HOSTS) == is_right
    assert named.is_wrong_host(scenario, _HOSTS) == is_wrong_host


def test_the_first_failure_is_named_before_those_that_stand_still() -> None:
    first, still = {"rank": 2, "host": "b"}, {"rank": 5, "host": "c"}
    assert named_by({"first": first, "stalled": [still]}) == Named(2, "b")
    assert named_by({"first": None, "stalled": [still]}) == Named(5, "c")
    assert named_by({"first": None, "stalled": []}) == Named(None, None)
