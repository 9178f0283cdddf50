"""The collector dies, again and again, under ranks at full speed: nothing lost, nothing twice, and nobody waits."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.collector import CollectorProcess
from tests.support.stored import assert_all_stored, stored_in
from tests.support.training import RUN, Job, Rank
from tests.support.waiting import wait_until

_KILLS = 3
_RANKS = 3
# No call of log() may hang. Where the machine is so busy that a process waits long for its turn, a collector takes as
# much longer to come back: a call that waited for that would take all of the time.
HANG_S, HANG_SHARE = 1.0, 0.5
# finish() waits 5 s for a collector; the rest is for a machine that is shared, and too little for another such wait.
EXIT_WITHIN_S = 7.0


def _log_more(ranks: list[Rank], events: int) -> None:
    for rank in ranks:
        rank.reach(rank.returned + events)


def test_a_collector_that_is_killed_and_started_again_stores_every_event_once(
    collector: CollectorProcess, measured: Callable[[str, object], None]
) -> None:
    with Job(collector.home, collector.url).ranks(_RANKS, "finish") as ranks:
        outages_s: list[float] = []
        for _ in range(_KILLS):
            stored = collector.get("/api/collector")["events"]
            wait_until(lambda: collector.get("/api/collector")["events"] > stored, "it stores events")  # noqa: B023
            collector.kill()
            killed_at = time.monotonic()
            _log_more(ranks, 10_000)
            collector.start()
            outages_s.append(time.monotonic() - killed_at)
        for rank in ranks:
            rank.progress.ask_to_stop()
        for rank in ranks:
            assert rank.wait() == 0
        collector.await_drained()
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)
        slowest_s = max(rank.progress.slowest_s for rank in ranks)
        measured("slowest_log_s", slowest_s)
        assert slowest_s <= max(HANG_S, HANG_SHARE * min(outages_s))
    with stored_in(collector.database) as stored_:
        assert stored_.events("opened") == _RANKS
        assert stored_.events("gap") == 0


@pytest.mark.parametrize("ending", ["finish", "return"])
def test_a_collector_that_stands_still_delays_no_exit_and_gets_all_once_it_goes_on(
    collector: CollectorProcess, ending: str
) -> None:
    with Job(collector.home, collector.url).ranks(1, ending) as ranks:
        ranks[0].reach(5_000)
        wait_until(lambda: collector.ranks(RUN), "the rank is known")
        collector.send(signal.SIGSTOP)  # its ports take connections still, and nobody answers
        ranks[0].reach(ranks[0].returned + 5_000)
        assert ranks[0].stop() <= EXIT_WITHIN_S
        assert ranks[0].stderr.count("\n") == 1
        assert "allranks sync" in ranks[0].stderr
        collector.send(signal.SIGCONT)
        collector.await_drained()
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)


def test_a_rank_that_runs_out_of_descriptors_sends_its_events_once_it_has_some(collector: CollectorProcess) -> None:
    with Job(collector.home, collector.url).ranks(1, "finish") as ranks:
        (rank,) = ranks
        rank.reach(10_000)
        _, hard = resource.prlimit(rank.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(rank.process.pid, resource.RLIMIT_NOFILE, (3, hard))
        collector.kill()  # after which the rank looks for it anew
        wait_until(lambda: "cannot be sent" in rank.stderr, "the rank says so")
        resource.prlimit(rank.process.pid, resource.RLIMIT_NOFILE, (1024, hard))
        collector.start()
        stored = collector.get("/api/collector")["events"]
        wait_until(lambda: collector.get("/api/collector")["events"] > stored, "its events come again")
        rank.stop()
        collector.await_drained()
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)


def test_a_rank_that_dies_while_no_collector_runs_is_drained_by_the_next_one(home: Path) -> None:
    collector = CollectorProcess(home)
    with Job(home, collector.url).ranks(2, "finish") as ranks:
        for rank in ranks:
            rank.reach(10_000)
            rank.kill()
        with collector:
            collector.await_drained()
            wait_until(
                lambda: [row["state"] for row in collector.ranks(RUN).values()] == ["dead", "dead"],
                "both are named dead",
            )
        assert_all_stored(collector.database, RUN, ranks)
