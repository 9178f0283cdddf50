"""A rank dies in the middle of its work: nothing that it logged is lost, and it is named dead at once."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.collector import CollectorProcess
from tests.support.stored import assert_all_stored
from tests.support.training import RUN, Job, Rank
from tests.support.waiting import wait_until

DEAD_WITHIN_S = 1.0
_EVENTS = 20_000
_END_S = 60.0


def _ended(collector: CollectorProcess, rank: int) -> Callable[[], dict[str, Any] | None]:
    def ended() -> dict[str, Any] | None:
        row = collector.ranks(RUN).get(rank)
        return row if row is not None and row["state"] in ("dead", "failed", "finished") else None

    return ended


def _died_at(rank: Rank) -> float:
    """When its process has ended (Unix seconds); it is not reaped: a launcher may take its time for that."""
    fd = os.pidfd_open(rank.process.pid)
    try:
        assert select.select([fd], [], [], _END_S)[0], "it does not end"
        return time.time()
    finally:
        os.close(fd)


def _dead_at(collector: CollectorProcess) -> float:
    """When the collector knew of the first death, by its own mark: not when a busy machine lets us hear of it."""
    events = collector.get(f"/api/runs/{RUN}/events?kind=state")["events"]
    return min(float(event["time"]) for event in events if event["body"]["state"] == "dead")


def test_a_rank_killed_at_full_speed_loses_nothing_and_is_dead_within_a_second(
    collector: CollectorProcess, measured: Callable[[str, object], None]
) -> None:
    with Job(collector.home, collector.url).ranks(2, "finish") as ranks:
        for rank in ranks:
            rank.reach(_EVENTS)
        wait_until(lambda: len(collector.ranks(RUN)) == 2, "both ranks are known")
        ranks[1].process.send_signal(signal.SIGKILL)
        died_at = _died_at(ranks[1])
        row = wait_until(_ended(collector, 1), "the rank is named dead")
        dead_after_s = _dead_at(collector) - died_at
        measured("dead_after_s", dead_after_s)
        assert (row["state"], row["signal"]) == ("dead", "SIGKILL")
        assert dead_after_s <= DEAD_WITHIN_S
        ranks[0].progress.ask_to_stop()
        assert ranks[0].wait() == 0
        wait_until(lambda: collector.ranks(RUN)[0]["state"] == "finished", "the other one is finished")
        ranks[1].wait()
        collector.await_drained()
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)


@pytest.mark.parametrize(
    ("ending", "fate"),
    [
        ("_exit-3", {"state": "dead", "exit_code": 3, "signal": None}),
        ("segfault", {"state": "dead", "exit_code": None, "signal": "SIGSEGV"}),
        ("abort", {"state": "dead", "exit_code": None, "signal": "SIGABRT"}),
    ],
)
def test_every_event_of_a_rank_that_ends_without_warning_is_stored(
    collector: CollectorProcess, ending: str, fate: dict[str, object]
) -> None:
    with Job(collector.home, collector.url).ranks(1, ending) as ranks:
        (rank,) = ranks
        rank.reach(_EVENTS)
        wait_until(lambda: collector.ranks(RUN), "the rank is known")
        rank.progress.ask_to_stop()
        died_at = _died_at(rank)
        row = wait_until(_ended(collector, 0), "the rank is named dead")
        assert _dead_at(collector) - died_at <= DEAD_WITHIN_S
        assert {key: row[key] for key in fate} == fate
        rank.wait()
        collector.await_drained()
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)


@pytest.mark.parametrize(
    ("ending", "code", "fate"),
    [
        ("raise", 1, {"state": "failed", "exit_code": 1}),
        ("exit-3", 3, {"state": "failed", "exit_code": 3}),
        ("return", 0, {"state": "finished", "signal": None}),
    ],
)
def test_a_rank_that_ends_by_itself_is_judged_by_how_it_ended(
    collector: CollectorProcess, ending: str, code: int, fate: dict[str, object]
) -> None:
    with Job(collector.home, collector.url).ranks(1, ending, "5000") as ranks:
        assert ranks[0].wait() == code
        wait_until(lambda: _has_fate(collector, ranks[0], fate), f"the rank is {fate}")
        collector.await_drained()
        collector.stop()
        assert_all_stored(collector.database, RUN, ranks)


def _has_fate(collector: CollectorProcess, rank: Rank, fate: dict[str, object]) -> bool:
    row = collector.ranks(RUN).get(rank.rank, {})
    return all(row.get(key) == value for key, value in fate.items())
