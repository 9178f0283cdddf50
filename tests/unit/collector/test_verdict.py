"""The verdict: the first failure is named rightly, whatever order it is told in, and followers are followers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from allranks_collector.last_words import Words
from allranks_collector.verdict import KINDS, SILENT, Class, Fate, RankFacts, Verdict, fate_of, judge

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


def silent(rank: int, at_s: float) -> RankFacts:
    return replace(alive(rank, "unreachable"), at_ns=T0 + round(at_s * S))


def lost(rank: int, at_s: float) -> RankFacts:
    return dead(rank, at_s, is_lost=True)


def said(kind: str, line: str = "…", type_: str = "", message: str = "") -> Words:
    return Words(kind, line, T0, type_, message)


def told(rank: int, at_s: float) -> RankFacts:
    return dead(rank, at_s, signal="SIGTERM")


def left(rank: int, at_s: float) -> RankFacts:
    return replace(dead(rank, at_s), state="finished")


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
        [silent(3, 0.0), failed(0, 40.0, PEER), failed(1, 40.0, TIMEOUT), told(2, 41.0)],
        *(3, "silent"),
    ),
    "a lost node that was taken for dead by then": (
        [lost(2, 0.0), lost(3, 0.3), failed(0, 900.0, TIMEOUT), dead(1, 900.0, signal="SIGABRT")],
        *(2, "silent"),
    ),
    "a lost node, after which the launcher has to kill": (
        [silent(2, 0.0), silent(3, 0.1), failed(0, 40.0, PEER), dead(1, 71.0, signal="SIGKILL")],
        *(2, "silent"),
    ),
    "a lost node, whose peers fail each in its own words later": (
        [silent(2, 0.0), silent(3, 0.1), failed(0, 40.0, PEER), failed(1, 50.0, OWN)],
        *(2, "silent"),
    ),
    "a rank that is cut off from the collector, and later another fails by itself": (
        [silent(3, 0.0), failed(0, 100.0, OWN), failed(1, 99.5, PEER), told(2, 101.0)],
        *(0, "exception"),
    ),
    "a rank that is cut off, taken for dead, and later another exits": (
        [lost(3, 0.0), dead(0, 1000.0, exit_code=3), failed(1, 1000.0, PEER)],
        *(0, "exit"),
    ),
    "a rank that is cut off after another has failed": (
        [failed(0, 1.0, OWN), failed(1, 1.0, PEER), silent(2, 3.0), silent(3, 3.1)],
        *(0, "exception"),
    ),
    "nobody saw how they ended, and the last words of one tell of a crash": (
        [
            dead(0, 0.0, words=said("connection", "RuntimeError: Connection closed by peer")),
            dead(1, 0.1, words=said("crash", "Fatal Python error: Segmentation fault")),
            dead(2, 0.0),
        ],
        *(1, "crash"),
    ),
    "all exit with 1, and all but one for their peers": (
        [
            dead(0, 0.0, exit_code=1, words=said("exception", "…", "RuntimeError", "Connection closed by peer")),
            dead(1, 0.1, exit_code=1, words=said("exception", "…", "ValueError", "no")),
            dead(2, 0.05, exit_code=1, words=said("connection")),
        ],
        *(1, "exception"),
    ),
    "all abort, and the watchdog of all but one waits for another": (
        [
            dead(0, 0.0, signal="SIGABRT", words=said("collective")),
            dead(1, 0.1, signal="SIGABRT", words=said("crash", "Assertion `n > 0' failed")),
            dead(2, 0.0, signal="SIGABRT", words=said("collective")),
        ],
        *(1, "crash"),
    ),
    "what a killed rank had printed tells nothing": (
        [dead(0, 0.0, signal="SIGKILL", words=said("connection")), failed(1, 0.1, PEER)],
        *(0, "killed"),
    ),
    "no memory on its GPU, and what the others make of it": (
        [
            failed(0, 0.0, PEER),
            failed(1, 0.4, {"type": "torch.OutOfMemoryError", "message": "CUDA out of memory. Tried 2 GiB"}),
        ],
        *(1, "device-oom"),
    ),
    "one rank is told to end, and the others lose it": (
        [failed(0, 0.0, PEER), failed(1, 0.01, PEER), dead(2, 0.05, signal="SIGTERM"), failed(3, 0.0, PEER)],
        *(2, "terminated"),
    ),
    "the later of two own failures is no cause": (
        [failed(0, 5.0, OWN), failed(1, 1.0, OWN), dead(2, 9.0, signal="SIGKILL")],
        *(1, "exception"),
    ),
    "a rank that ends well before the others, which lose it": (
        [failed(0, 5.0, PEER), failed(1, 5.1, PEER), left(2, 0.0), told(3, 5.3)],
        *(2, "left"),
    ),
    "a rank that ends well, and the others wait for it until they give up": (
        [failed(0, 600.0, TIMEOUT), failed(1, 600.1, TIMEOUT), left(2, 0.0)],
        *(2, "left"),
    ),
    "a rank that ends well, and the launcher ends those that have not lost it yet": (
        [failed(0, 1.2, PEER), left(1, 0.0), told(2, 1.1), told(3, 1.1)],
        *(1, "left"),
    ),
    "a rank that ended well long before the launcher was told to end the others": (
        [failed(0, 600.1, PEER), left(1, 0.0), dead(2, 600.0, signal="SIGTERM")],
        *(2, "terminated"),
    ),
    "a rank that ends well after the others have lost each other": (
        [failed(0, 0.0, PEER), failed(1, 0.1, PEER), left(2, 1.0)],
        *(0, "connection"),
    ),
    "a rank that ends well, and another that fails by itself": (
        [failed(0, 5.0, PEER), failed(1, 5.1, OWN), left(2, 0.0)],
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
    ended = {facts.rank for facts in ranks if facts.state not in ("running", "finished")}
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
        lambda: left(rank, at_s),
        lambda: silent(rank, at_s),
        lambda: lost(rank, at_s),
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
    well = [facts.rank for facts in ranks if facts.state == "finished"]
    assert sorted(set(named) - set(well)) == bad
    assert not {fate.facts.rank for fate in verdict.followers} & set(well)
    assert (verdict.first is None) == (not bad)


def _is_just(verdict: Verdict) -> None:
    """No echo is blamed while there was a cause before it; and no cause, while a stronger one was surely earlier."""
    first = verdict.first
    if first is None:
        return
    for other in verdict.followers:
        if first.kind.class_ is Class.ECHO and other.kind.class_ is not Class.ECHO:
            assert other.earliest_ns > first.latest_ns
        if first.kind.class_ is not Class.ECHO and other.kind.class_ is not Class.ECHO and other.kind is not SILENT:
            assert other.latest_ns >= first.earliest_ns
        if first.kind is SILENT and _is_by_itself(other):
            # Else it would be the cause: somebody has told of a lost peer before it.
            assert any(echo.kind.class_ is Class.ECHO and echo.at_ns < other.at_ns for echo in verdict.followers)


def _is_by_itself(fate: Fate) -> bool:
    return fate.kind.name in ("oom", "crash", "device-oom", "exception", "exit")


@pytest.mark.parametrize("seed", range(10))
def test_who_is_merely_not_heard_is_never_the_cause_where_another_fails_by_itself(seed: int) -> None:
    """Whenever the cut was; the others' connection errors come with the failure."""
    random_ = random.Random(seed)
    for _ in range(100):
        at_s = random_.uniform(0.0, 1000.0)
        own = random_.choice([failed(0, at_s, OWN), dead(0, at_s, exit_code=3), dead(0, at_s, signal="SIGSEGV")])
        cut = [random_.choice([silent, lost])(rank, random_.uniform(0.0, 1000.0)) for rank in (4, 5)]
        peers = [failed(rank, at_s + random_.uniform(-1.0, 4.0), PEER) for rank in (1, 2, 3)]
        first = judge([own, *peers, *cut]).first
        assert first is not None
        assert first.facts.rank == 0


@pytest.mark.parametrize("seed", range(10))
def test_a_lost_node_is_the_cause_of_what_its_peers_end_by(seed: int) -> None:
    random_ = random.Random(seed)
    for _ in range(100):
        gone = [random_.choice([silent, lost])(rank, random_.uniform(0.0, 1.0)) for rank in (4, 5)]
        at_s = random_.uniform(10.0, 600.0)
        peers = [failed(rank, at_s + random_.uniform(0.0, 5.0), random_.choice([PEER, TIMEOUT])) for rank in range(3)]
        ended = dead(3, at_s + random_.uniform(0.0, 60.0), signal=random_.choice(["SIGTERM", "SIGABRT"]))
        first = judge([*peers, ended, *gone]).first
        assert first is not None
        assert first.facts.host == "node-2"


def test_the_table_has_each_kind_once_and_every_echo_has_a_grace() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all((kind.grace_s > 0) == (kind.class_ is Class.ECHO) for kind in KINDS)
    worst = max(kind.blame for kind in KINDS if kind.class_ is not Class.ECHO)
    assert all(kind.blame > worst for kind in KINDS if kind.class_ is Class.ECHO)


def test_of_ends_that_nobody_saw_the_first_is_who_was_last_known_to_live_the_longest_ago() -> None:
    gone = [dead(rank, 10.0, early_ns=round(early_s * S)) for rank, early_s in enumerate((0.1, 0.4, 0.2))]
    verdict = judge(gone)
    assert verdict.first is not None
    assert (verdict.first.facts.rank, verdict.first.likely_ns) == (1, T0 + round(9.6 * S))
    assert [fate.facts.rank for fate in verdict.followers] == [2, 0]


def test_ranks_that_are_ended_together_are_stopped() -> None:
    assert judge([told(0, 0.0), told(1, 0.05), told(2, 0.06)]).outcome == "stopped"
    assert judge([told(0, 0.0)]).outcome == "stopped"
    assert judge([told(0, 0.0), told(1, 0.9), failed(2, 0.9, PEER)]).outcome == "stopped"
    assert judge([told(0, 0.0), told(1, 20.0)]).outcome == "stopped"
    assert judge([told(0, 0.0), told(1, 20.0), failed(2, 0.1, PEER)]).outcome == "failed"
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


def test_of_ranks_of_one_step_who_stands_elsewhere_than_the_others_stands_first() -> None:
    ranks = [alive(0, "stalled", last_step=7), alive(1, "stalled", last_step=7, is_odd=True)]
    assert [facts.rank for facts in judge(ranks).stalled] == [1, 0]


def test_who_is_held_by_something_in_itself_stands_before_those_that_wait_for_it() -> None:
    ranks = [alive(0, "stalled", last_step=7), alive(1, "stalled", last_step=8, is_held=True)]
    assert [facts.rank for facts in judge(ranks).stalled] == [1, 0]


def hung(facts: RankFacts, since_s: float) -> RankFacts:
    return replace(facts, hung_as="stood in main train.py:41", hung_ns=T0 + round(since_s * S))


@pytest.mark.parametrize("end", ["terminated", "watchdog", "killed", "still there"])
def test_who_hung_is_the_first_however_the_others_were_ended_for_it(end: str) -> None:
    culprit = {
        "terminated": told(2, 601.0),
        "watchdog": told(2, 601.0),
        "killed": dead(2, 600.0, signal="SIGKILL"),
        "still there": alive(2, "stalled"),
    }[end]
    others = [
        dead(rank, 600.0, signal="SIGKILL") if end == "killed" else failed(rank, 600.0, TIMEOUT) for rank in (0, 1)
    ]
    if end == "terminated":
        others = [told(0, 600.0), told(1, 600.1)]
    verdict = judge([*others, hung(culprit, 10.0)])
    assert verdict.first is not None
    assert (verdict.first.facts.rank, verdict.first.kind.name, verdict.first.at_ns) == (2, "hung", T0 + 10 * S)
    assert verdict.first.what == "it stood in main train.py:41"
    assert [fate.facts.rank for fate in verdict.followers] == [0, 1]


def test_who_hung_is_no_cause_while_another_failed_by_itself_or_was_lost() -> None:
    for other in (failed(0, 600.0, OWN), silent(0, 1.0)):
        verdict = judge([other, failed(1, 600.0, TIMEOUT), hung(told(2, 601.0), 10.0)])
        assert verdict.first is not None
        assert verdict.first.facts.rank == 0


def test_ranks_that_are_only_not_heard_have_not_failed() -> None:
    verdict = judge([alive(0), silent(1, 0.0)])
    assert verdict.outcome == "unreachable"
    assert verdict.first is not None
    assert verdict.first.facts.rank == 1
    assert judge([failed(0, 9.0, PEER), silent(1, 0.0)]).outcome == "failed"


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("DistNetworkError: Connection was likely closed. Did the remote server shutdown or crash?", "connection"),
        ("DistNetworkError: failed to recv, got 0 bytes", "connection"),
        (
            "DistBackendError: NCCL communicator was aborted on rank 3. Original reason for failure was: …",
            "connection",
        ),
        ("DistBackendError: NCCL error in: x.cpp:2006, ncclRemoteError: A call failed", "connection"),
        ("DistStoreError: Timed out after 301 seconds waiting for clients. 3/4 clients joined.", "collective"),
        ("RuntimeError: Timed out waiting 1800000ms for recv operation to complete", "collective"),
        ("RuntimeError: Some NCCL operations have failed or timed out.", "collective"),
        ("RendezvousTimeoutError: ", "collective"),
        ("SignalException: Process 7 got signal: 15", "terminated"),
        ("KeyboardInterrupt: ", "terminated"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "device-oom"),
        ("RuntimeError: CUDA error: out of memory", "device-oom"),
        ("MemoryError: ", "oom"),
        ("OSError: [Errno 12] Cannot allocate memory", "oom"),
        ("RuntimeError: CUDA error: device-side assert triggered", "exception"),
        ("ValueError: the loss is not a number", "exception"),
    ],
)
def test_what_the_libraries_of_the_field_say_is_understood(told: str, kind: str) -> None:
    type_, _, message = told.partition(": ")
    fate = fate_of(failed(0, 0.0, {"type": type_, "message": message}))
    assert fate is not None
    assert fate.kind.name == kind


def test_a_cause_is_said_without_where_in_a_library_it_arose() -> None:
    fate = fate_of(failed(0, 0.0, PEER))
    assert fate is not None
    assert fate.what == "RuntimeError: Connection closed by peer [10.0.0.1]:1"


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        ("allranks.demo.allreduce.PeerError", "rank 6 is gone (it closed the connection)"),
        ("allranks.demo.allreduce.PeerError", "rank 6 takes nothing any more: it is stuck"),
        ("RuntimeError", "worker 3 closed its connection"),
    ],
)
def test_who_only_tells_that_a_peer_is_gone_is_no_cause(type_: str, message: str) -> None:
    found = judge([failed(0, 0.0, {"type": type_, "message": message}), silent(6, 0.5)]).first
    assert found is not None
    assert found.facts.rank == 6


def test_of_several_that_ended_well_before_one_that_needed_them_the_first_is_told_with_their_number() -> None:
    first = judge([left(0, 0.0), left(1, 0.2), left(2, 0.1), failed(3, 1.0, PEER)]).first
    assert first is not None
    assert (first.facts.rank, first.what) == (0, "it finished, as 2 more did, while others still needed it")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "worker"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that …", "worker"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "worker"),
        ("DataLoader worker (pid 7) is killed by signal: Terminated. ", "terminated"),
    ],
)
def test_a_worker_that_dies_is_a_cause_unless_it_was_told_to_end(message: str, kind: str) -> None:
    fate = fate_of(failed(0, 0.0, {"type": "RuntimeError", "message": message}))
    assert fate is not None
    assert fate.kind.name == kind


def test_a_worker_that_the_kernel_kills_for_want_of_memory_is_told_so() -> None:
    killed = {"type": "RuntimeError", "message": "DataLoader worker (pid 7) is killed by signal: Killed."}
    fate = fate_of(replace(failed(0, 0.0, killed), oom_kills=1))
    assert fate is not None
    assert fate.kind.name == "oom"
    assert fate.what.endswith("is killed by signal: Killed. (oom_kill of its control group)")


@pytest.mark.parametrize(
    ("exception", "what"),
    [
        (
            {"type": "OSError", "message": "[Errno 28] No space left on device: 'ckpt.pt'"},
            "OSError: [Errno 28] No space left on device: 'ckpt.pt'",
        ),
        (
            {
                "type": "RuntimeError",
                "message": "[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598",
            },
            "RuntimeError: unexpected pos 704 vs 598",
        ),
        (
            {
                "type": "RuntimeError",
                "message": "the writer is gone",
                "traceback": "Traceback …\nOSError: [Errno 122] Disk quota exceeded\n\nDuring handling …",
            },
            "OSError: [Errno 122] Disk quota exceeded; then RuntimeError: the writer is gone",
        ),
    ],
)
def test_a_full_disk_is_told_as_such_whatever_a_library_makes_of_it(exception: dict[str, str], what: str) -> None:
    fate = fate_of(failed(0, 0.0, exception))
    assert fate is not None
    assert (fate.kind.name, fate.what) == ("disk-full", what)


def test_a_cause_is_said_in_one_line() -> None:
    fate = fate_of(failed(0, 0.0, OWN))
    assert fate is not None
    assert fate.what == "ValueError: the loss is not a number"
