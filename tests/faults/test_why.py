"""The first failure is named rightly: of ranks that fall in a chain, each noisier than the one that began it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from tests.support.collector import CollectorProcess
from tests.support.training import RUN, Job, Rank
from tests.support.waiting import wait_until

from allranks_collector.cli.app import run as cli

_WORLD = 4
_STEPS = 5
_ENDED = ("dead", "failed", "finished")


@contextlib.contextmanager
def _training(collector: CollectorProcess, tmp_path: Path, how: str, who: int) -> Generator[list[Rank]]:
    with Job(collector.home, collector.url, program="falling").ranks(_WORLD, str(tmp_path), how, str(who)) as ranks:
        for rank in ranks:
            rank.reach(_STEPS, timeout_s=60.0)
        yield ranks


def _why_once_all_ended(collector: CollectorProcess) -> dict[str, Any]:
    def ended() -> bool:
        states = [row["state"] for row in collector.ranks(RUN).values()]
        return len(states) == _WORLD and all(state in _ENDED for state in states)

    wait_until(ended, "all ranks have ended", timeout_s=60.0)
    collector.await_drained()
    found: dict[str, Any] = collector.get(f"/api/runs/{RUN}/why")
    return found


@pytest.mark.parametrize(
    ("how", "who", "kind", "cause"),
    [
        ("kill", 2, "killed", "killed by SIGKILL"),
        ("segfault", 0, "crash", "killed by SIGSEGV"),
        ("_exit-3", 3, "exit", "exited with code 3"),
        ("leave", 1, "left", "it finished while others still needed it"),
        ("finish-and-_exit-3", 2, "left", "it finished while others still needed it"),
    ],
)
def test_who_goes_without_a_word_is_named_before_its_peers_that_lost_it(
    collector: CollectorProcess,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    how: str,
    who: int,
    kind: str,
    cause: str,
) -> None:
    with _training(collector, tmp_path, how, who) as ranks:
        ranks[who].progress.ask_to_stop()
        # None is reaped before: on older kernels only a zombie tells how it ended.
        found = _why_once_all_ended(collector)
        for rank in ranks:
            rank.wait()
        row = collector.ranks(RUN)[who]
    first = found["first"]
    assert (found["outcome"], first["rank"], first["kind"], first["cause"]) == ("failed", who, kind, cause)
    assert (first["host"], first["pid"]) == (row["host"], ranks[who].process.pid)
    assert first["last_step"] >= _STEPS - 1
    assert [metric["key"] for metric in first["metrics"]] == ["loss"]
    assert first["last_lines"][-1]["text"] == f"rank {who} is about to {how}"
    assert {fate["rank"] for fate in found["followers"]} == set(range(_WORLD)) - {who}
    assert {fate["kind"] for fate in found["followers"]} == {"connection"}
    assert len(found["lines"]) == 5
    assert found["roll_call"]["text"] == "all 4 present"
    capsys.readouterr()
    assert cli(["why", RUN, "--http", collector.http]) == 0
    assert capsys.readouterr().out.splitlines() == found["lines"]


def test_who_raises_is_named_before_those_that_its_launcher_ends(collector: CollectorProcess) -> None:
    with Job(collector.home, collector.url, program="rank").ranks(_WORLD, "raise", "0", "0.01") as ranks:
        for rank in ranks:
            rank.reach(_STEPS, timeout_s=60.0)
        ranks[1].progress.ask_to_stop()
        assert ranks[1].wait() == 1
        for rank in ranks:
            if rank.rank != 1:
                rank.process.send_signal(signal.SIGTERM)
        found = _why_once_all_ended(collector)
        for rank in ranks:
            rank.wait()
    first = found["first"]
    assert (first["rank"], first["kind"], first["cause"]) == (1, "exception", "ValueError: the loss is not a number")
    assert first["exception"]["traceback"]
    assert {fate["kind"] for fate in found["followers"]} == {"terminated"}


@pytest.mark.parametrize(("job", "state"), [({"SLURM_JOB_ID": "7"}, "preempted"), ({}, "killed")])
def test_a_job_that_its_scheduler_ends_is_preempted_and_no_rank_of_it_has_failed(
    collector: CollectorProcess, job: dict[str, str], state: str
) -> None:
    with Job(collector.home, collector.url, env=job).ranks(2, "hang", "0", "0.01") as ranks:
        wait_until(lambda: len(collector.ranks(RUN)) == 2, "both have come", timeout_s=60.0)
        for rank in ranks:
            rank.process.send_signal(signal.SIGTERM)
        wait_until(lambda: collector.get(f"/api/runs/{RUN}")["state"] == state, "its end is told", timeout_s=60.0)
        for rank in ranks:
            rank.wait()
    assert collector.get(f"/api/runs/{RUN}/why")["outcome"] == "stopped"
