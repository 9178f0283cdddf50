"""Jobs of torchrun in which ranks fail: the others are ended for it, and none of anybody's events is lost."""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support import scenario
from tests.support.ports import free_port
from tests.support.stored import Counter, Stored, Writer
from tests.support.stored_files import await_files
from tests.support.waiting import wait_until

_MESSAGE = "the loss of rank 1 is not a number"
_INTERRUPT_S = 5.0
# By (attempt, rank): for how many events log() has returned, at the least.
Returned = dict[tuple[int, int], int]


def _returned(directory: Path, run: str) -> Returned:
    """What the ranks of a run have noted; of those that came so far."""
    found: Returned = {}
    for path in directory.glob(f"returned-{run}-*"):
        life, rank = map(int, path.name.split("-")[-2:])
        (found[life + 1, rank],) = struct.unpack("q8x", path.read_bytes())
    return found


def _assert_all_stored(stored: Stored, run: str, returned: Returned) -> None:
    """Of each rank every event whose log() returned, once and in order, and at most one more."""
    counters: dict[tuple[int, int], Counter] = {}
    for counter in stored.counters(run):
        assert (counter.attempt, counter.rank) not in counters
        counters[counter.attempt, counter.rank] = counter
    assert counters.keys() == returned.keys()
    for place, counter in counters.items():
        assert counter.is_unbroken, place
        assert len(counter.steps) - returned[place] in (0, 1), (place, returned[place], len(counter.steps))


def _states(writers: list[Writer]) -> dict[tuple[int, int], tuple[str | None, str | None]]:
    """State and signal by (attempt, rank)."""
    return {(writer.attempt, writer.rank): (writer.state, writer.detail.get("signal")) for writer in writers}


def test_two_jobs_on_one_port_are_two_runs_whose_failed_rank_is_named_and_whose_others_lose_nothing(
    home: Path,
) -> None:
    scenario.start_collector(home)
    how = scenario.torchrun(2, f"--master-port={free_port()}")
    directories: list[Path] = []
    for _ in range(2):
        with scenario.started(home, "raising_rank.py", "stored", how=how) as program:
            ended = program.wait()
            directories.append(program.directory)
        assert ended.exit_code == 1
        assert not ended.left
        assert ended.stderr.count(f"ValueError: {_MESSAGE}") == 1
        assert "allranks:" not in ended.stderr
    scenario.await_ended(home)
    with scenario.stored(home) as stored:
        runs = stored.runs()
        assert len(runs) == 2
        for run, directory in zip(runs, directories, strict=True):
            writers = stored.writers(run)
            assert _states(writers) == {(1, 0): ("dead", "SIGTERM"), (1, 1): ("failed", None)}
            exception = writers[1].detail["exception"]
            assert (exception["type"], exception["message"]) == ("ValueError", _MESSAGE)
            assert "in <module>" in exception["traceback"]
            _assert_all_stored(stored, run, _returned(directory, run))


def _assert_told_as_attempts(found: dict[str, Any]) -> None:
    """The second life began at the beginning, and came no further than the first had been."""
    failed, second = found["attempts"]
    assert (failed["state"], failed["first_step"], second["state"]) == ("failed", 0, "finished")
    assert failed["why"].startswith("rank 1 on ")
    assert failed["why"].endswith(f"failed first: ValueError: {_MESSAGE}")
    assert (second["first_step"], second["last_step"], second["resumed_from"]) == (0, 2000, None)
    assert (failed["last_step"] >= 2000, second["recomputed"], second["why"]) == (True, 2001, None)
    assert failed["ended_ns"] > failed["began_ns"]
    assert second["ended_ns"] > second["began_ns"] > failed["began_ns"]
    assert min(found["goodput"]["productive_s"], found["goodput"]["recomputation_s"]) > 0
    assert found["goodput"]["total_s"] == pytest.approx((second["ended_ns"] - failed["began_ns"]) / 1e9)


def test_a_job_that_is_restarted_goes_on_as_the_next_attempt_of_its_run(home: Path) -> None:
    """In a home that nobody has used: the first life's events come in after the second's first ones."""
    how = scenario.torchrun(4, "--max-restarts=1", f"--master-port={free_port()}")
    with scenario.started(home, "raising_rank.py", how=how) as program:
        ended = program.wait()
        directory = program.directory
    assert ended.exit_code == 0, ended.stderr
    assert not ended.left
    assert ended.stderr.count(f"ValueError: {_MESSAGE}") == 1
    scenario.await_ended(home)
    (told,) = scenario.ask(home, "/api/runs")["runs"]
    _assert_told_as_attempts(scenario.ask(home, f"/api/runs/{told['id']}/attempts"))
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        writers = stored.writers(run)
        assert all((writer.role, writer.world_size) == ("rank", 4) for writer in writers)
        first = {(1, rank): "failed" if rank == 1 else "dead" for rank in range(4)}
        second = {(2, rank): "finished" for rank in range(4)}
        assert {place: state for place, (state, _) in _states(writers).items()} == first | second
        _assert_all_stored(stored, run, _returned(directory, run))
        assert stored.rows("SELECT attempt FROM attempts ORDER BY started_ns") == [(1,), (2,)]


def _assert_run_of_two(home: Path, run: str) -> None:
    """One run, of which both ranks are known, though one of them never said a word."""
    told = scenario.ask(home, "/api/runs")["runs"]
    assert [(row["id"], row["world_size"], row["project"], row["name"]) for row in told] == [(run, 2, "aaa", "test")]
    assert [row["rank"] for row in scenario.ask(home, f"/api/runs/{run}/ranks")["ranks"]] == [0, 1]


def test_ranks_that_leave_init_to_the_first_one_keep_their_checkpoints_in_its_folder(home: Path) -> None:
    how = scenario.torchrun(2, f"--master-port={free_port()}")
    with scenario.started(home, "first_rank_only.py", "100", how=how) as program:
        ended = program.wait()
    assert ended.exit_code == 0, ended.stderr
    assert not ended.left
    assert "allranks:" not in ended.stderr
    (directory,) = (home / "runs").iterdir()
    told = [f"rank {rank} keeps them in {directory / 'checkpoints'}" for rank in range(2)]
    assert sorted(ended.stdout.splitlines()) == told
    names = {f"checkpoints/rank-{rank}-step-{step}.ckpt" for rank in range(2) for step in range(0, 100, 20)}
    assert {str(path.relative_to(directory)) for path in directory.rglob("*.ckpt")} == names
    arrived = await_files(home, directory.name, names)
    assert arrived == {name: (directory / name).read_bytes() for name in names}
    _assert_run_of_two(home, directory.name)
    with scenario.stored(home) as stored:
        (counter,) = stored.counters(directory.name)
        assert counter.is_unbroken
        assert len(counter.steps) == 100


def test_ctrl_c_ends_a_job_soon_and_what_it_had_is_stored(home: Path) -> None:
    how = scenario.torchrun(2, f"--master-port={free_port()}")
    with scenario.started(home, "first_rank_only.py", "100000", how=how) as program:
        for rank in range(2):
            program.await_line(f"rank {rank} keeps")
        wait_until(lambda: _noted(program) > 100, "it is under way", timeout_s=60)
        begun = time.monotonic()
        program.interrupt()
        ended = program.wait()
        assert time.monotonic() - begun <= _INTERRUPT_S
    assert ended.exit_code == 1
    assert not ended.left
    (directory,) = (home / "runs").iterdir()
    names = {f"checkpoints/rank-{rank}-step-0.ckpt" for rank in range(2)}
    arrived = await_files(home, directory.name, names)
    assert {name: arrived[name] for name in names} == {name: (directory / name).read_bytes() for name in names}
    _assert_run_of_two(home, directory.name)
    scenario.await_ended(home)
    with scenario.stored(home) as stored:
        (counter,) = stored.counters(directory.name)
        assert counter.is_unbroken
        assert len(counter.steps) - _noted(program) in (0, 1)


def _noted(program: scenario.Program) -> int:
    """For how many events log() has returned in rank 0."""
    with contextlib.suppress(OSError):
        return int.from_bytes((program.directory / "returned-0").read_bytes(), "little")
    return 0
