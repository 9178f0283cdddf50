"""Processes and threads of one program: each is stored under its own name, and none disturbs another."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scenarios.programs import full_speed
from tests.support import scenario
from tests.support.stored import Counter, Stored

# From Python 3.12 on os.fork warns of threads.
_QUIET = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}


def _lengths(counters: list[Counter]) -> list[int]:
    """How many events each has counted, with none left out, none twice and none out of order."""
    assert all(counter.is_unbroken for counter in counters)
    return [len(counter.steps) for counter in counters]


def _steps(stored: Stored, key: str) -> list[int]:
    """The steps of a metric, of all writers, in the order in which they were stored."""
    rows = stored.rows(
        "SELECT step FROM points JOIN series USING (series) WHERE key = ? AND value = step ORDER BY points.rowid", key
    )
    return [step for (step,) in rows]


def test_children_that_are_forked_in_one_thread_while_another_logs_are_all_stored(home: Path) -> None:
    ended = scenario.run(home, "forking_threads.py", env=_QUIET)
    ended.must_be_well()
    told = [line.split() for line in ended.stdout.splitlines()]
    own = {run for _, run, _ in told} - {"rank", "child"}
    rank_pid, rank_events = next((int(pid), int(events)) for pid, what, events in told if what == "rank")
    children = {int(pid) for pid, what, _ in told if what == "child"}
    # They also log into the run that they were forked with.
    beside = {int(pid) for pid, what, _ in told if what in own}
    assert (len(children), len(own)) == (4, 4)
    with scenario.stored(home) as stored:
        (run,) = set(stored.runs()) - own
        assert set(stored.runs()) == own | {run}
        rank, *others = stored.writers(run)
        assert (rank.role, rank.pid) == ("rank", rank_pid)
        assert {(other.role, other.rank, other.parent) for other in others} == {("child", 0, rank.id)}
        assert {other.pid for other in others} == children | beside
        assert len(others) == len(children | beside)
        assert sorted(_lengths(stored.counters(run))) == [300] * 4 + [rank_events]
        assert sorted(map(len, stored.values("beside").values())) == [300] * 4
        for each in own:
            (writer,) = stored.writers(each)
            assert (writer.role, writer.rank, writer.world_size, writer.state) == ("rank", 0, 1, "finished")
            assert _lengths(stored.counters(each)) == [300]


def test_a_child_that_is_forked_in_the_middle_of_another_threads_init_begins_its_own_run(home: Path) -> None:
    scenario.start_collector(home)
    ended = scenario.run(home, "forking_in_init.py", env=_QUIET)
    ended.must_be_well()
    with scenario.stored(home) as stored:
        runs = {f"{who}-{number}" for who in ("parent", "child") for number in range(20)}
        assert set(stored.runs()) == runs
        assert all(_lengths(stored.counters(run)) == [1] for run in runs)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_ranks_at_full_speed_that_never_finish_are_stored_whole(home: Path, method: str) -> None:
    ended = scenario.run(home, "full_speed.py", method)
    ended.must_be_well()
    scenario.await_ended(home)
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        counters = stored.counters(run)
        assert sorted(counter.rank for counter in counters) == list(range(full_speed.RANKS))
        assert _lengths(counters) == [full_speed.EVENTS] * full_speed.RANKS
        ways = [("finished", None), ("dead", None), ("finished", None), ("dead", "SIGKILL")]
        found = [(writer.state, writer.detail.get("signal")) for writer in stored.writers(run)]
        # How a process ended is known where it was seen to.
        assert [state for state, _ in found] == [state for state, _ in ways] * 2
        assert all(signal in (None, expected) for (_, signal), (_, expected) in zip(found, ways * 2, strict=True))


@pytest.mark.parametrize(
    ("place", "places"),
    [
        pytest.param({}, 3, id="no place"),
        pytest.param({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, 1, id="a rank"),
    ],
)
def test_a_program_that_inherits_the_environment_is_a_run_of_its_own_unless_it_has_a_place(
    home: Path, place: dict[str, str], places: int
) -> None:
    ended = scenario.run(home, "inheriting.py", env=place)
    ended.must_be_well()
    runs = {int(pid): run for pid, run in (line.split() for line in ended.stdout.splitlines())}
    assert len(runs) == 3
    with scenario.stored(home) as stored:
        assert set(stored.runs()) == set(runs.values())
        assert len(set(runs.values())) == places
        writers = {writer.pid: (run, writer) for run in stored.runs() for writer in stored.writers(run)}
        assert {pid: run for pid, (run, _) in writers.items()} == runs
        roles = [writers[pid][1].role for pid in runs]
        assert roles == (["rank", "child", "child"] if place else ["rank"] * 3)
        assert {writer.rank for _, writer in writers.values()} == {int(place.get("RANK", "0"))}
        for run in stored.runs():
            assert set(_lengths(stored.counters(run))) == {100}


def test_sixteen_threads_and_calls_that_come_twice_or_too_late(home: Path) -> None:
    ended = scenario.run(home, "threads.py")
    assert ended.exit_code == 0, ended.stderr
    assert not ended.left
    again, late, twice = ended.stderr.splitlines()
    assert "the run first goes on" in again
    assert "the run first has ended: what is logged now is not kept" in late
    assert "finish() was called again" in twice
    with scenario.stored(home) as stored:
        assert stored.runs() == ["first", "second"]
        for thread in range(16):
            assert _steps(stored, f"thread-{thread}") == list(range(2_000))
        assert not _steps(stored, "late")
        assert stored.values("late") == {}
        assert _lengths(stored.counters("second")) == [1]
        assert stored.rows("SELECT DISTINCT project FROM runs") == [("neighbours",)]
        (config,) = stored.rows("SELECT last(value ORDER BY config.rowid) FROM config WHERE key = 'lr'")
        assert config == ("2",)


@pytest.mark.parametrize("kind", ["daemon", "waited-for"])
def test_programs_that_end_while_a_thread_logs_end_well_and_keep_what_came_before(home: Path, kind: str) -> None:
    ended = scenario.run(home, "ending_while_logging.py", kind, env=_QUIET)
    assert ended.exit_code == 0, ended.stderr
    assert not ended.left
    for line in ended.stderr.splitlines():
        assert "what is logged now is not kept" in line or "the spool is closed" in line, ended.stderr
    returned = {run: (int(before), int(after)) for run, before, after in map(str.split, ended.stdout.splitlines())}
    assert len(returned) == 12
    with scenario.stored(home) as stored:
        assert set(stored.runs()) == set(returned)
        for run, (before, after) in returned.items():
            (events,) = _lengths(stored.counters(run))
            assert (before if kind == "daemon" else after) <= events <= after + 1
            assert stored.states(run, 0)[-1] == "finished"
