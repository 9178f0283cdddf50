"""The collector that init starts by itself: one for all who ask, gone when it is idle, back when it has died."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from tests.support import processes, scenario
from tests.support.stored import assert_all_stored
from tests.support.training import Job, Rank
from tests.support.waiting import wait_until

from allranks_bus.home import read_endpoint
from allranks_bus.processes import is_alive
from allranks_bus.spool_directory import find_spools

_ENV = {"ALLRANKS_IDLE_EXIT": "4"}
_EVENTS = 10_000
# Of ranks that wait for each other.
_FEW, _PAUSE = 1_000, "0.0005"


def _starts(home: Path) -> int:
    return (home / "collector.log").read_text().count("listens: data")


def _await_idle_exit(home: Path) -> None:
    wait_until(lambda: not processes.with_home(home), "the collector has ended by itself")


def _stop_all(ranks: list[Rank]) -> None:
    for rank in ranks:
        rank.progress.ask_to_stop()
    for rank in ranks:
        assert rank.wait() == 0, rank.stderr


def test_many_ranks_of_two_runs_at_once_start_one_collector_and_a_later_run_another(home: Path) -> None:
    one, two = (Job(home, run=run, env=_ENV) for run in ("one", "two"))
    # None goes before all have come, however long the last one takes: the collector may not become idle between them.
    with one.ranks(4, "finish", "0", _PAUSE) as some, two.ranks(4, "return", "0", _PAUSE) as others:
        for rank in (*some, *others):
            rank.reach(_FEW)
        _stop_all([*some, *others])
        _await_idle_exit(home)
        assert _starts(home) == 1
        assert not list(find_spools(home / "spool"))
        assert_all_stored(home / "allranks.duckdb", "one", some)
        assert_all_stored(home / "allranks.duckdb", "two", others)
    with Job(home, run="later", env=_ENV).ranks(1, "finish", str(_EVENTS)) as later:
        assert later[0].wait() == 0
        _await_idle_exit(home)
        assert _starts(home) == 2
        assert_all_stored(home / "allranks.duckdb", "later", later)


def test_a_collector_that_was_killed_is_started_again_by_its_ranks(home: Path) -> None:
    with Job(home, run="one", env=_ENV).ranks(2, "finish") as ranks:
        for _ in range(2):
            endpoint = wait_until(lambda: read_endpoint(home), "a collector listens")
            for rank in ranks:
                rank.reach(rank.returned + _EVENTS)
            os.kill(endpoint.pid, signal.SIGKILL)
            wait_until(lambda: read_endpoint(home) is None, "it is dead")
        wait_until(lambda: read_endpoint(home), "a collector listens again")
        _stop_all(ranks)
        _await_idle_exit(home)
        assert _starts(home) == 3
        assert not list(find_spools(home / "spool"))
        assert_all_stored(home / "allranks.duckdb", "one", ranks)


def test_a_collector_whose_home_was_removed_ends_and_takes_nothing_that_is_the_next_ones(home: Path) -> None:
    with Job(home, run="one").ranks(1, "finish", str(_EVENTS)) as ranks:
        assert ranks[0].wait() == 0
    old = wait_until(lambda: read_endpoint(home), "a collector listens")
    shutil.rmtree(home)
    # The first ends before there is another collector: its spool lies there for whoever looks.
    with (
        Job(home, run="two").ranks(1, "_exit-3", str(_EVENTS)) as left,
        Job(home, run="three").ranks(1, "hang") as last,
    ):
        assert left[0].wait() == 3
        wait_until(lambda: not is_alive(old.pid, old.pid_start), "the old one has ended")
        last[0].reach(_EVENTS)
        last[0].kill()
        scenario.await_drained(home)
        scenario.end_collector(home)
        assert_all_stored(home / "allranks.duckdb", "two", left)
        assert_all_stored(home / "allranks.duckdb", "three", last)
