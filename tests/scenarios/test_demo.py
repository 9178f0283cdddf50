"""`allranks demo` for real: processes, sockets, a collector in a fresh home, and ranks that die or stand still."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.ports import free_neighbours, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


RUN = "import sys; from allranks_collector.cli import main; sys.exit(main())"


def allranks(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], env=env, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with a home of its own, whose collector is ended afterwards."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ALLRANKS_")}
    env = kept | {
        "ALLRANKS_HOME": str(tmp_path / "home"),
        "ALLRANKS_HTTP_PORT": str(free_port()),
        "ALLRANKS_DATA_PORT": str(free_neighbours()),
        "ALLRANKS_STALL_MIN_S": "1",
    }
    yield env
    assert allranks(env, "down").returncode == 0


def demo(env: Mapping[str, str], *arguments: str) -> dict[str, Any]:
    """What `demo --json` tells."""
    done = allranks(env, "demo", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def steps_stored(env: Mapping[str, str], run: str) -> dict[int, list[int]]:
    """The steps of every rank at which a loss is stored, in order, with repetitions if there are any."""
    done = allranks(env, "export", run, "metrics")
    assert done.returncode == 0, done.stderr
    steps: dict[int, list[int]] = defaultdict(list)
    for row in map(json.loads, done.stdout.splitlines()):
        if row["key"] == "train/loss":
            steps[row["rank"]].append(row["step"])
    return {rank: sorted(found) for rank, found in steps.items()}


def test_a_training_ends_by_itself_with_every_event_stored(env: dict[str, str]) -> None:
    told = demo(env, "--seconds", "5")
    assert [rank["state"] for rank in told["ranks"]] == ["finished"] * 4
    assert (told["run"]["state"], told["cause"]) == ("finished", None)
    last = told["run"]["last_step"]
    assert last > 3
    assert steps_stored(env, told["run"]["id"]) == {rank: list(range(last + 1)) for rank in range(4)}


def test_a_killed_rank_is_named_and_loses_nothing(env: dict[str, str]) -> None:
    told = demo(env, "--seconds", "5", "--kill-rank", "2")
    assert [rank["state"] for rank in told["ranks"]] == ["failed", "failed", "dead", "failed"]
    assert told["cause"].startswith("rank 2 on ")
    assert all("rank 2 is gone" in rank["exception"]["message"] for rank in told["ranks"] if rank["rank"] != 2)
    # A step is logged by all ranks or by none: they come out of the mean together, and the victim ends between two.
    # What it had not sent comes in from its spool, a moment after its death is known.
    wanted = list(range(told["run"]["last_step"] + 1))
    deadline = time.monotonic() + 60.0
    while (stored := steps_stored(env, told["run"]["id"])) != dict.fromkeys(range(4), wanted):
        assert time.monotonic() < deadline, {rank: (len(steps), steps[-1:]) for rank, steps in stored.items()}
        time.sleep(0.1)


def test_a_rank_that_stands_still_is_seen_stalled(env: dict[str, str]) -> None:
    told = demo(env, "--seconds", "5", "--stall-rank", "1", "--timeout", "15")
    assert told["trouble"]["1"] == "stalled"
    # By its stack; or by what the others said of it, if they gave up before they were asked.
    assert "rank 1 on " in told["cause"] or "rank 1 sent nothing" in told["cause"]


def test_no_rank_is_left_behind_by_a_launcher_that_is_told_to_end(env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "allranks.demo", "--ranks", "2", "--seconds", "100", "--name", "cut"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as launcher:
        assert launcher.stdout is not None
        # Rank 0 speaks once it trains. The pipe ends when its last holder has gone: the launcher and all ranks.
        assert "step" in next(line for line in launcher.stdout if "loss" in line)
        launcher.terminate()
        launcher.stdout.read()
        assert launcher.wait(60) == 130
