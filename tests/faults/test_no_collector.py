"""Nobody ever listens: training goes on and ends as if there were a collector, and its events wait in the spool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import processes
from tests.support.collector import CollectorProcess, clean_environment, nobody_listens
from tests.support.draining import drain_all
from tests.support.stored import assert_all_stored, stored_in
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

# finish() waits 5 s for a collector; the rest is for a machine that is shared, and too little for another such wait.
EXIT_WITHIN_S = 7.0
_EVENTS = 20_000


@pytest.mark.parametrize("ending", ["finish", "return"])
def test_training_ends_in_time_says_where_its_events_are_and_sync_brings_them_in_once(
    home: Path, ending: str
) -> None:
    collector = CollectorProcess(home, {"ALLRANKS_DRAIN_ORPHANS": "no"})
    with nobody_listens() as url, Job(home, url).ranks(2, ending) as ranks:
        for rank in ranks:
            rank.reach(_EVENTS)
            rank.progress.ask_to_stop()
        for rank in ranks:
            assert rank.stop() <= EXIT_WITHIN_S
            (line,) = rank.stderr.splitlines()
            assert str(home / "spool") in line
        # What is left of the ranks tries to deliver their last words, and holds the spools meanwhile.
        wait_until(lambda: not processes.with_home(home), "all that belongs to the ranks has ended", timeout_s=60)
        with collector:
            first = list(drain_all(home / "spool", collector.address))
            assert {drained.problem for drained in first} == {""}
            # Beside them, the line that they have printed.
            assert sum(drained.records > _EVENTS for drained in first) == 2
            assert not list(drain_all(home / "spool", collector.address))
        assert_all_stored(collector.database, RUN, ranks)


def test_two_drainers_at_once_bring_everything_in_once(home: Path) -> None:
    collector = CollectorProcess(home)  # which drains by itself
    with nobody_listens() as url, Job(home, url).ranks(3, "hang", str(_EVENTS)) as ranks:
        for rank in ranks:
            rank.reach(_EVENTS)
            rank.kill()
        with collector:
            # Processes, for a spool's lock is a process's.
            command = [sys.executable, "-m", "tests.faults.programs.drain", str(home / "spool"), collector.url]
            drainers = [subprocess.Popen(command, env=clean_environment(home)) for _ in range(2)]
            assert [drainer.wait(60) for drainer in drainers] == [0, 0]
            collector.await_drained()
        assert_all_stored(collector.database, RUN, ranks)
    with stored_in(collector.database) as stored:
        assert stored.events("opened") == 3
