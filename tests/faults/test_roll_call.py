"""A rank that never comes: who is missing is told within seconds, wherever one asks."""

from __future__ import annotations

import contextlib

import pytest
from tests.support.collector import CollectorProcess
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

from allranks_collector.cli.app import run as cli

_WORLD, _MISSING = 4, 2
_SAID_WITHIN_S = 10.0


def test_a_rank_that_does_not_come_is_missed_until_it_comes(
    collector: CollectorProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Job(collector.home, collector.url)

    def said() -> str:
        found: str = collector.get(f"/api/runs/{RUN}/why")["roll_call"]["text"]
        return found

    def states() -> list[str]:
        return [row["state"] for _, row in sorted(collector.ranks(RUN).items())]

    with contextlib.ExitStack() as stack:
        ranks = [job.start(rank, _WORLD, "finish", "0", "0.01") for rank in range(_WORLD) if rank != _MISSING]
        for rank in ranks:
            stack.callback(rank.kill)
            rank.reach(1, timeout_s=60.0)
        wait_until(
            lambda: states() == ["running", "running", "expected", "running"], "they are", timeout_s=_SAID_WITHIN_S
        )
        host = collector.ranks(RUN)[0]["host"]
        assert said() == f"3 of 4 present; missing 2 (on {host})"
        capsys.readouterr()
        assert cli(["why", RUN, "--http", collector.http]) == 0
        told = capsys.readouterr().out
        assert "3 of 4 present; missing 2" in told
        assert "healthy" not in told
        assert cli(["ranks", RUN, "--http", collector.http]) == 0
        assert "expected" in capsys.readouterr().out
        late = job.start(_MISSING, _WORLD, "finish", "0", "0.01")
        stack.callback(late.kill)
        wait_until(lambda: said() == "all 4 present", "the last one has come", timeout_s=60.0)
        for rank in (*ranks, late):
            rank.stop()
