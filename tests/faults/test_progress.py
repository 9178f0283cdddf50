"""Ranks that stand still, that are stopped, and that keep the others waiting: each is told as what it is."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.faults.programs.pausing import PAUSING
from tests.support.collector import CollectorProcess
from tests.support.debugger import held
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

_SLOW, _SLOW_S, _STEPS = 2, 0.04, 80
_STALL_S = 4.0


def _in_state(collector: CollectorProcess, rank: int, state: str) -> Callable[[], dict[str, Any] | None]:
    def found() -> dict[str, Any] | None:
        row = collector.ranks(RUN).get(rank)
        return row if row is not None and row["state"] == state else None

    return found


def test_who_loads_slowly_is_named_with_what_it_costs_and_who_is_stopped_comes_back(
    collector: CollectorProcess,
) -> None:
    job = Job(collector.home, collector.url, program="synchronous")
    barrier = str(collector.home.parent / "barrier")
    with job.ranks(4, barrier, str(_SLOW), str(_SLOW_S)) as ranks:
        ranks[0].reach(_STEPS, timeout_s=60.0)
        ranks[1].process.send_signal(signal.SIGSTOP)
        row = wait_until(_in_state(collector, 1, "stalled"), "the stopped rank is told", timeout_s=60.0)
        assert row["reason"].startswith("stopped by a signal")
        assert collector.ranks(RUN)[3]["state"] != "dead"
        ranks[1].process.send_signal(signal.SIGCONT)
        wait_until(_in_state(collector, 1, "running"), "it is running again", timeout_s=60.0)
        ranks[0].progress.ask_to_stop()
        assert [rank.wait() for rank in ranks] == [0, 0, 0, 0]
        steps = ranks[0].returned
        collector.await_drained()
        found = collector.get(f"/api/runs/{RUN}/stragglers")
    assert found["measured"] == 4
    slow = {one["rank"]: one for one in found["ranks"] if one["slow"]}
    assert slow[_SLOW]["section"] == "data"
    lost_s = slow[_SLOW]["sections"]["data"]
    # A busy machine may add to what it sleeps; the first and the last steps may be missing.
    assert 0.6 * steps * _SLOW_S <= lost_s <= 2.0 * steps * _SLOW_S
    assert slow[_SLOW]["rank_hours"] == pytest.approx(4 * slow[_SLOW]["lost_s"] / 3600)


def test_a_stuck_main_thread_and_one_in_c_code_are_told_from_each_other_and_from_death(
    collector: CollectorProcess,
) -> None:
    with Job(collector.home, collector.url, program="standing").ranks(2, "queue", "gil"):
        waits = wait_until(_in_state(collector, 0, "stalled"), "the one that waits is stalled", timeout_s=60.0)
        computes = wait_until(_in_state(collector, 1, "stalled"), "the other is stalled too", timeout_s=60.0)
        goodput = collector.get(f"/api/runs/{RUN}/attempts")["goodput"]
    # From its last step on, and not from when it was noticed ten seconds later.
    assert goodput["stalled_s"] >= 10.0
    assert re.match(r"no step after \d+ for ", waits["reason"])
    assert "beat" not in waits["reason"]
    assert "though its process is there: C code holds the interpreter" in computes["reason"]


def test_who_is_held_by_a_debugger_is_told_so_and_goes_on(collector: CollectorProcess) -> None:
    with Job(collector.home, collector.url).ranks(1, "finish", "0", "0.01") as (rank,):
        rank.reach(_STEPS, timeout_s=60.0)
        wait_until(_in_state(collector, 0, "running"), "the rank is known", timeout_s=60.0)
        with held(rank.process.pid):
            row = wait_until(_in_state(collector, 0, "stalled"), "the held rank is told", timeout_s=60.0)
        assert row["reason"].startswith(f"held by a debugger (process {os.getpid()})")
        wait_until(_in_state(collector, 0, "running"), "it is running again", timeout_s=60.0)
        rank.stop()


def test_who_evaluates_saves_or_has_announced_it_is_not_accused_nor_who_waits_for_it(
    collector_of: Callable[[dict[str, str]], CollectorProcess],
) -> None:
    with collector_of({"ALLRANKS_STALL_MIN_S": str(_STALL_S)}) as collector:
        job = Job(collector.home, collector.url, program="pausing")
        alone = Job(collector.home, collector.url, "alone", program="pausing")
        spinning = Job(collector.home, collector.url, "spinning", program="pausing")
        first = Job(collector.home, collector.url, "first", program="pausing")
        saving = Job(collector.home, collector.url, "saving", program="pausing")
        hows = ("section", "announced", "bare")
        with (
            job.ranks(3, *hows) as ranks,
            first.ranks(2, "evaluates", "bare") as evaluating,
            saving.ranks(2, "writes", "bare") as writing,
            alone.ranks(1, "bare") as others,
            spinning.ranks(1, "spins") as spins,
        ):
            patient = (*ranks, *evaluating, *writing)
            wait_until(
                lambda: all(rank.progress.phase == PAUSING for rank in patient),
                "they stand still",
                timeout_s=60.0,
            )
            stand_since = time.monotonic()
            wait_until(
                lambda: (
                    all(collector.ranks(run).get(0, {}).get("state") == "stalled" for run in ("alone", "spinning"))
                    and time.monotonic() - stand_since > 2 * _STALL_S
                ),
                "who says nothing and only spins is stalled, and all others stood as long",
                timeout_s=60.0,
            )
            for rank in (*patient, *others, *spins):
                rank.progress.ask_to_stop()
            assert [rank.wait() for rank in (*patient, *others, *spins)] == [0] * 9
            collector.await_drained()
            runs = (RUN, "alone", "first", "saving", "spinning")
            told = {run: collector.get(f"/api/runs/{run}/events?kind=state")["events"] for run in runs}
    for run in ("alone", "spinning"):
        assert [event["body"]["state"] for event in told[run]][:2] == ["stalled", "running"]
    assert not [
        event for run in (RUN, "first", "saving") for event in told[run] if event["body"]["state"] == "stalled"
    ]
