"""Lightning on two processes, with checkpoints in the run's folder: a script that hung under another tracker."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.support import scenario
from tests.support.stored import Stored, Writer
from tests.support.stored_files import await_files
from tests.support.waiting import wait_until

from allranks_bus.home import read_endpoint

_STEPS = 40
_INTERRUPT_S = 5.0
_WATCHED = {
    f"{kind}/layers.{layer}.{part}"
    for kind in ("gradients", "parameters")
    for layer in (0, 2)
    for part in ("weight", "bias")
}


def _must_be_two_ranks(stored: Stored, run: str, *ends: tuple[str, ...]) -> list[Writer]:
    """There are two ranks, each of which ended in one of these ways."""
    writers = [writer for writer in stored.writers(run) if writer.role == "rank"]
    assert [(writer.rank, writer.attempt) for writer in writers] == [(0, 1), (1, 1)]
    assert all(writer.state in states for writer, states in zip(writers, ends, strict=True)), writers
    return writers


def _must_have_counted(stored: Stored, run: str, least: dict[int, int], beyond: int) -> None:
    """Each rank's events are stored once and in order: those of which it is known that they were logged, and no more
    than `beyond` others."""
    counters = {counter.rank: counter for counter in stored.counters(run)}
    assert sorted(counters) == sorted(least)
    for rank, counter in counters.items():
        assert counter.is_unbroken, counter
        assert least[rank] <= len(counter.steps) <= least[rank] + beyond


def _returned(directory: Path) -> dict[int, int]:
    """How many events each rank has noted as logged."""
    return {rank: int((directory / f"returned-{rank}").read_text()) for rank in (0, 1)}


@pytest.mark.parametrize("how", ["", "first", "spawn", "fork"])
def test_it_ends_by_itself_with_each_rank_in_one_run_and_its_checkpoints_stored(home: Path, how: str) -> None:
    scenario.run(home, "lightning_ddp.py", str(_STEPS), how).must_be_well()
    (directory,) = (home / "runs").iterdir()
    run = directory.name
    checkpoints = {f"checkpoints/epoch=0-step={step}.ckpt" for step in (10, 20, 30, 40)}
    assert {str(path.relative_to(directory)) for path in directory.rglob("*.ckpt")} == checkpoints
    for name, content in await_files(home, run, checkpoints).items():
        assert content == (directory / name).read_bytes(), name
    with scenario.stored(home) as stored:
        assert stored.runs() == [run]
        _must_be_two_ranks(stored, run, ("finished",), ("finished",))
        _must_have_counted(stored, run, {0: _STEPS, 1: _STEPS}, 0)
        assert stored.rows("SELECT project, name FROM runs") == [("aaa", "test")]
        assert dict(stored.rows("SELECT DISTINCT key, value FROM config")) == {"lr": "0.1", "hidden": "8"}
        for rank in (0, 1):
            keys = _keys(stored, rank)
            assert keys["metric"] == {"epoch", "i", "loss", "of_rank"}
            assert keys["object"] == _WATCHED
            assert stored.rows(_VALUES, "of_rank", rank) == [(float(rank),)]


def test_ctrl_c_ends_it_soon_and_all_that_was_logged_is_stored(home: Path) -> None:
    with scenario.started(home, "lightning_ddp.py", "100000") as program:
        program.await_line("training")
        # Its start takes a processor for itself.
        wait_until(lambda: read_endpoint(home), "the collector listens", timeout_s=60.0)
        begun = time.monotonic()
        program.interrupt()
        ended = program.wait()
        seconds = time.monotonic() - begun
    assert seconds <= _INTERRUPT_S
    assert ended.exit_code == 1
    assert not ended.left, ended.left
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        # Lightning's first process kills the other, maybe before that one comes to know of the Ctrl-C.
        first, _ = _must_be_two_ranks(stored, run, ("failed",), ("failed", "dead"))
        assert first.detail["exception"]["type"] == "KeyboardInterrupt"
        _must_have_counted(stored, run, _returned(program.directory), 1)


def test_the_rank_that_raised_is_named_and_what_the_other_had_logged_is_stored(home: Path) -> None:
    with scenario.started(home, "lightning_ddp.py", str(_STEPS), "raising") as program:
        ended = program.wait()
    assert ended.exit_code == 1
    assert not ended.left, ended.left
    with scenario.stored(home) as stored:
        (run,) = stored.runs()
        first, second = _must_be_two_ranks(stored, run, ("failed",), ("failed",))
        _must_have_counted(stored, run, _returned(program.directory), 1)
        assert second.detail["exception"]["message"] == "rank 1 has had enough"
        assert first.detail["exception"]["message"] != "rank 1 has had enough"


_VALUES = (
    "SELECT DISTINCT p.value FROM points p JOIN series s USING (series) JOIN writers w USING (writer)"
    " WHERE s.key = ? AND w.rank = ?"
)


def _keys(stored: Stored, rank: int) -> dict[str, set[str]]:
    """The names of all that a rank has logged, by kind."""
    found: dict[str, set[str]] = {}
    for kind, key in stored.rows(
        "SELECT s.kind, s.key FROM series s JOIN writers w USING (writer) WHERE w.rank = ?", rank
    ):
        found.setdefault(kind, set()).add(key)
    return found
