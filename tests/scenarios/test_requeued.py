"""A job that is queued again goes on from its checkpoint, as the next attempt of its run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.support import scenario
from tests.support.waiting import wait_until


def test_a_requeued_job_tells_what_it_did_again_and_has_one_curve(home: Path) -> None:
    scenario.start_collector(home)
    with scenario.started(home, "requeued.py", "hangs") as program:
        program.await_line("all is stored")
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    scenario.await_ended(home)
    with scenario.started(home, "requeued.py", directory=program.directory) as again:
        again.wait().must_be_well()

    def answer() -> dict[str, Any]:
        found: dict[str, Any] = scenario.ask(home, "/api/runs/job-17/attempts")
        return found

    wait_until(lambda: answer()["attempts"][-1]["state"] == "finished", "all is known", timeout_s=60)
    found = answer()
    killed, second = found["attempts"]
    assert (killed["state"], killed["first_step"], killed["last_step"]) == ("killed", 0, 130)
    assert "killed by SIGKILL" in killed["why"]
    assert (second["state"], second["first_step"], second["last_step"]) == ("finished", 101, 200)
    assert (second["resumed_from"], second["recomputed"], second["why"]) == (101, 30, None)
    goodput = found["goodput"]
    parts = [seconds for name, seconds in goodput.items() if name not in ("fraction", "total_s")]
    assert sum(parts) == pytest.approx(goodput["total_s"])
    assert goodput["total_s"] == pytest.approx((second["ended_ns"] - killed["began_ns"]) / 1e9)
    # A step takes at least 5 ms.
    assert goodput["recomputation_s"] >= 0.005 * 29
    assert goodput["productive_s"] >= 0.005 * (130 + 70)
    assert min(goodput["init_s"], goodput["detection_s"], goodput["restart_s"]) > 0
    assert goodput["fraction"] == pytest.approx(goodput["productive_s"] / goodput["total_s"])
    (curve,) = scenario.ask(home, "/api/runs/job-17/metrics?key=i")["series"]
    assert curve["step"] == curve["value"] == list(range(201))
    shown = scenario.ask(home, "/api/runs/job-17/timeline?attempt=all")
    ended = [shown["states"][row["spans"][-1][0]] for row in shown["ranks"]]
    assert ended == ["dead", "finished"]
