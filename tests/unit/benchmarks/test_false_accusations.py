"""What counts as an accusation, and when healthy ranks are at their checkpoints."""

from __future__ import annotations

import pytest
from benchmarks.false_accusations import JOBS, Job, accusations, saves_at

_SECOND_NS = 10**9


@pytest.mark.parametrize("state", ["stalled", "unreachable", "dead", "failed"])
def test_a_state_that_blames_a_rank_is_an_accusation_though_it_was_taken_back(state: str) -> None:
    states = [
        ("run", 0, "running", 1 * _SECOND_NS, None),
        ("run", 3, state, 7 * _SECOND_NS, '{"reason": "no step"}'),
        ("run", 3, "running", 8 * _SECOND_NS, None),
        ("run", 3, "finished", 9 * _SECOND_NS, "{}"),
    ]
    (found,) = accusations(states, [], began_ns=2 * _SECOND_NS)
    assert (found.run, found.rank, found.what, found.after_s, found.reason) == ("run", 3, state, 5.0, "no step")


def test_an_alert_is_an_accusation_whoever_it_is_about() -> None:
    alerts = [("run", None, 3 * _SECOND_NS, "b"), ("run", 1, 2 * _SECOND_NS, "a")]
    found = accusations([("run", 0, "finished", 0, None)], alerts, began_ns=0)
    assert [(each.rank, each.what, each.reason) for each in found] == [(1, "alert", "a"), (None, "alert", "b")]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.run)
def test_ranks_save_at_one_moment_or_each_at_its_own_and_are_done_before_the_end(job: Job) -> None:
    moments = [saves_at(job, rank, 600.0) for rank in range(job.ranks)]
    assert len({tuple(each) for each in moments}) == (1 if job.is_at_once else job.ranks)
    assert max(max(each) for each in moments) <= 600.0 - 60.0
