"""Who shares a run and who does not: launches that look alike, sweeps from one parent; and a launch that breaks."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest
from tests.scenarios.programs import sweep, two_launches
from tests.support import scenario
from tests.support.ports import free_port


@pytest.mark.parametrize("how", ["by-hand", "spawn"])
def test_two_launches_one_after_the_other_on_one_port_are_two_runs(home: Path, how: str) -> None:
    ended = scenario.run(home, "two_launches.py", how, str(free_port()))
    ended.must_be_well()
    places = [line.split() for line in ended.stdout.splitlines()]
    launches = [{run for run, *_ in places[:2]}, {run for run, *_ in places[2:]}]
    with scenario.stored(home) as stored:
        assert sorted(map(len, launches)) == [1, 1]
        assert launches[0] | launches[1] == set(stored.runs())
        assert len(stored.runs()) == 2
        for run in stored.runs():
            counters = stored.counters(run)
            assert sorted((counter.rank, counter.attempt) for counter in counters) == [(0, 1), (1, 1)]
            assert all(counter.is_unbroken and len(counter.steps) == two_launches.STEPS for counter in counters)


def test_each_trial_of_a_sweep_from_one_parent_is_a_run_of_its_own(home: Path) -> None:
    ended = scenario.run(home, "sweep.py")
    ended.must_be_well()
    trials = dict(line.split() for line in ended.stdout.splitlines())
    assert len(trials) == 1 + 2 + 2 * 4 + 2 * 2
    scenario.await_ended(home)
    with scenario.stored(home) as stored:
        assert set(stored.runs()) == trials.keys()
        for run, trial in trials.items():
            (writer,) = stored.writers(run)
            assert (writer.role, writer.rank, writer.world_size, writer.state) == ("rank", 0, 1, "finished"), trial
            (counter,) = stored.counters(run)
            assert counter.is_unbroken
            assert len(counter.steps) == sweep.STEPS
        told = stored.rows("SELECT id, value FROM config JOIN runs USING (run) WHERE key = 'trial'")
        assert {run: value.strip('"') for run, value in told} == trials


def _two_ranks(stack: contextlib.ExitStack, home: Path, *, is_without: bool) -> list[scenario.Program]:
    """The ranks of all_reduce.py, started by hand."""
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    places = [{**world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [
        stack.enter_context(scenario.started(home, "all_reduce.py", env=place, is_without=is_without))
        for place in places
    ]


def test_a_rank_that_waits_for_a_dead_one_ends_as_it_would_without_us_and_all_is_stored(home: Path) -> None:
    with contextlib.ExitStack() as stack:
        programs = [_two_ranks(stack, home, is_without=is_without) for is_without in (False, True)]
        ends, ends_without = ([rank.wait() for rank in ranks] for ranks in programs)
    codes = [[ended.exit_code for ended in each] for each in (ends, ends_without)]
    assert codes == [[1, -signal.SIGKILL]] * 2
    assert "RuntimeError" in ends[0].stderr
    for ended in ends:
        assert not ended.left
        assert "allranks:" not in ended.stderr
    scenario.await_ended(home)
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        waiting, killed = stored.writers(run)
        assert (waiting.state, waiting.detail["exception"]["type"]) == ("failed", "RuntimeError")
        assert killed.state == "dead"
        counters = stored.counters(run)
        assert sorted(counter.rank for counter in counters) == [0, 1]
        assert all(counter.is_unbroken and len(counter.steps) == 200 for counter in counters)
