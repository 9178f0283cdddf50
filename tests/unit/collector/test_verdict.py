"""The verdict: the first failure is named rightly, whatever order it is told in, and followers are followers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from allranks_collector.verdict import KINDS, Class, RankFacts, Verdict, fate_of, judge

S = 10**9
T0 = 1_700_000_000 * S

PEER = {"type": "RuntimeError", "message": "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:1"}
RESET = {"type": "ConnectionResetError", "message": "[Errno 104] Connection reset by peer"}
OWN = {"type": "ValueError", "message": "the loss is not a number\nat step 3"}
TIMEOUT = {
    "type": "DistBackendError",
    "message": "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5)",
}


def dead(rank: int, at_s: float, **more: Any) -> RankFacts:
    return RankFacts(rank, "dead", T0 + round(at_s * S), host=f"node-{rank // 2}", pid=100 + rank, **more)


def failed(rank: int, at_s: float, exception: dict[str, str]) -> RankFacts:
    return replace(dead(rank, at_s), state="failed", exception=exception)


def alive(rank: int, state: str = "running", **more: Any) -> RankFacts:
    return RankFacts(rank, state, host=f"node-{rank // 2}", **more)


def told(rank: int, at_s: float) -> RankFacts:
    return dead(rank, at_s, signal="SIGTERM")


# A story: its ranks, whom it is to blame on, and as what.
STORIES: dict[str, tuple[list[RankFacts], int, str]] = {
    "killed, and seen late by the collector": (
        [failed(0, 0.0, PEER), failed(1, 0.02, RESET), dead(2, 0.1, signal="SIGKILL"), alive(3)],
        *(2, "killed"),
    ),
    "killed for want of memory": (
        [dead(0, 0.0, signal="SIGKILL", oom_kills=1), failed(1, 0.0, PEER)],
        *(0, "oom"),
    ),
    "a segfault and what the others make of it": (
        [failed(0, 1.0, PEER), dead(1, 1.01, signal="SIGSEGV"), dead(2, 1.0, signal="SIGABRT"), told(3, 1.5)],
        *(1, "crash"),
    ),
    "an exception, and the launcher's SIGTERM": (
        [told(0, 0.3), failed(1, 0.1, OWN), told(2, 0.3), told(3, 0.31)],
        *(1, "exception"),
    ),
    "an exit code, and connection errors": (
        [failed(0, 0.1, PEER), failed(1, 0.1, PEER), dead(2, 0.1, exit_code=3), failed(3, 0.2, PEER)],
        *(2, "exit"),
    ),
    "an exception that is told after its rank has cleaned up": (
        [failed(0, 0.5, PEER), failed(1, 2.0, OWN), failed(2, 0.5, PEER)],
        *(1, "exception"),
    ),
    "a connection of its own, long before anything else": (
        [failed(0, 0.0, RESET), told(1, 30.0), dead(2, 60.0, signal="SIGKILL")],
        *(0, "connection"),
    ),
    "a lost node, whose peers wait for their sockets": (
        [replace(alive(3, "unreachable"), at_ns=T0), failed(0, 40.0, PEER), failed(1, 40.0, TIMEOUT), told(2, 41.0)],
        *(3, "silent"),
    ),
    "one rank is told to end, and the others lose it": (
        [failed(0, 0.0, PEER), failed(1, 0.01, PEER), dead(2, 0.05, signal="SIGTERM"), failed(3, 0.0, PEER)],
        *(2, "terminated"),
    ),
    "the later of two own failures is no cause": (
        [failed(0, 5.0, OWN), failed(1, 1.0, OWN), dead(2, 9.0, signal="SIGKILL")],
        *(1, "exception"),
    ),
    "a signal as an exit code of a shell": ([dead(0, 0.1, exit_code=139), told(1, 0.1)], 0, "crash"),
    "a collective that the others left": (
        [
            failed(
                0,
                0.1,
                {
                    "type": "RuntimeError",
                    "message": "unhandled",
                    "traceback": 'File "train.py", line 3\n File "/x/torch/distributed/distributed_c10d.py", line 2',
                },
            ),
            dead(1, 0.2, exit_code=1),
        ],
        *(1, "exit"),
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_the_first_failure_is_named(story: str) -> None:
    ranks, who, kind = STORIES[story]
    verdict = judge(ranks)
    assert verdict.outcome == "failed"
    assert verdict.first is not None
    assert (verdict.first.facts.rank, verdict.first.kind.name) == (who, kind)
    assert verdict.first.facts.host == f"node-{who // 2}"
    ended = {facts.rank for facts in ranks if facts.state != "running"}
    assert {fate.facts.rank for fate in verdict.followers} == ended - {who}


@pytest.mark.parametrize("story", STORIES)
def test_a_clock_that_is_moved_for_all_changes_nothing(story: str) -> None:
    ranks, who, _ = STORIES[story]
    later = [replace(facts, at_ns=None if facts.at_ns is None else facts.at_ns + 300 * S) for facts in ranks]
    first = judge(later).first
    assert first is not None
    assert first.facts.rank == who


def _any_rank(rank: int, random_: random.Random) -> RankFacts:
    at_s = random_.choice([0.0, 0.01, 0.1, 0.5, 1.0, 4.0, 10.0, 100.0]) + random_.random() * 0.01
    made = (
        lambda: alive(rank, random_.choice(["running", "stalled", "finished", "expected"])),
        lambda: replace(alive(rank, "unreachable"), at_ns=T0 + round(at_s * S)),
        lambda: failed(rank, at_s, random_.choice([PEER, RESET, OWN, TIMEOUT])),
        lambda: dead(rank, at_s, signal=random_.choice(["SIGTERM", "SIGKILL", "SIGSEGV", "SIGABRT", "SIGUSR1"])),
        lambda: dead(rank, at_s, exit_code=random_.choice([None, 1, 3, 137, 143])),
        lambda: dead(rank, at_s, signal="SIGKILL", oom_kills=2),
    )
    return random_.choice(made)()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_the_verdict_holds_together(seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(100):
        ranks = [_any_rank(rank, random_) for rank in range(random_.randint(1, 9))]
        verdict = judge(ranks)
        shuffled = list(ranks)
        random_.shuffle(shuffled)
        assert judge(shuffled) == verdict
        _is_whole(verdict, ranks)
        _is_just(verdict)


def _is_whole(verdict: Verdict, ranks: list[RankFacts]) -> None:
    """Who ended badly or went silent is named once, and nobody else."""
    bad = sorted(facts.rank for facts in ranks if facts.state in ("dead", "failed", "unreachable"))
    named = [fate.facts.rank for fate in (verdict.first, *verdict.followers) if fate is not None]
    assert sorted(named) == bad
    assert (verdict.first is None) == (not bad)


def _is_just(verdict: Verdict) -> None:
    """No echo is blamed while there was a cause before it; and no cause, while a stronger one was surely earlier."""
    first = verdict.first
    if first is None:
        return
    for other in verdict.followers:
        if first.kind.class_ is Class.ECHO and other.kind.class_ is not Class.ECHO:
            assert other.earliest_ns > first.latest_ns
        if first.kind.class_ is not Class.ECHO and other.kind.class_ is not Class.ECHO:
            assert other.latest_ns >= first.earliest_ns


def test_the_table_has_each_kind_once_and_every_echo_has_a_grace() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all((kind.grace_s > 0) == (kind.class_ is Class.ECHO) for kind in KINDS)
    worst = max(kind.blame for kind in KINDS if kind.class_ is not Class.ECHO)
    assert all(kind.blame > worst for kind in KINDS if kind.class_ is Class.ECHO)


def test_ranks_that_are_ended_together_are_stopped() -> None:
    assert judge([told(0, 0.0), told(1, 0.05), told(2, 0.06)]).outcome == "stopped"
    assert judge([told(0, 0.0)]).outcome == "stopped"
    assert judge([told(0, 0.0), alive(1)]).outcome == "failed"


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ("running running expected", "running"),
        ("stalled running", "running"),
        ("stalled stalled", "stalled"),
        ("finished finished", "finished"),
        ("finished expected", "finished"),
        ("expected expected", "expected"),
        ("", "expected"),
    ],
)
def test_where_nothing_failed_the_verdict_is_the_runs_state(states: str, outcome: str) -> None:
    verdict = judge([alive(rank, state) for rank, state in enumerate(states.split())])
    assert (verdict.outcome, verdict.first, verdict.followers) == (outcome, None, ())


def test_who_is_furthest_behind_stands_first_among_the_stalled() -> None:
    ranks = [alive(0, "stalled", last_step=9), alive(1, "stalled", last_step=7), alive(2, "stalled")]
    assert [facts.rank for facts in judge(ranks).stalled] == [2, 1, 0]


def test_who_is_held_by_something_in_itself_stands_before_those_that_wait_for_it() -> None:
    ranks = [alive(0, "stalled", last_step=7), alive(1, "stalled", last_step=8, is_held=True)]
    assert [facts.rank for facts in judge(ranks).stalled] == [1, 0]


def test_ranks_that_are_only_not_heard_have_not_failed() -> None:
    silent = replace(alive(1, "unreachable"), at_ns=T0)
    verdict = judge([alive(0), silent])
    assert verdict.outcome == "unreachable"
    assert verdict.first is not None
    assert verdict.first.facts.rank == 1
    assert judge([failed(0, 9.0, PEER), silent]).outcome == "failed"


def test_a_cause_is_said_in_one_line() -> None:
    fate = fate_of(failed(0, 0.0, OWN))
    assert fate is not None
    assert fate.what == "ValueError: the loss is not a number"
