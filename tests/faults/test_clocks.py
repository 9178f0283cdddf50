"""Ranks whose clocks are wrong by minutes: how they ended, and what they printed, is told in the collector's."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

from tests.support.collector import CollectorProcess
from tests.support.training import RUN, Job
from tests.support.waiting import wait_until

# By rank, by how much its clock is wrong. Rank 1, which fails, would seem to be the last, and rank 2 the first.
_OFF_S = (0, 300, -300)
_FAILS = 1
_STEPS = 150
_SLACK_S = 2.0


def _wrong_clock(off_s: int) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong; its monotonic one is as it is."""
    package = importlib.util.find_spec("libfaketime")
    assert package is not None
    assert package.origin is not None
    library = Path(package.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    env = {"LD_PRELOAD": str(library), "FAKETIME": f"{off_s:+d}s", "DONT_FAKE_MONOTONIC": "1"}
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"], env=env, stdout=subprocess.PIPE, check=True
    )
    assert abs(float(told.stdout) - time.time() - off_s) < 60, "libfaketime does not work here"
    return env


def test_who_failed_first_and_what_was_printed_first_is_told_though_clocks_differ_by_minutes(
    collector: CollectorProcess, tmp_path: Path
) -> None:
    begun = time.time()
    with contextlib.ExitStack() as stack:
        ranks = [
            Job(collector.home, collector.url, program="falling", env=_wrong_clock(off_s) if off_s else {}).start(
                rank, len(_OFF_S), str(tmp_path), "raise", str(_FAILS)
            )
            for rank, off_s in enumerate(_OFF_S)
        ]
        for rank in ranks:
            stack.callback(rank.kill)
        for rank in ranks:
            rank.reach(_STEPS, timeout_s=60.0)
        asked = time.time()
        ranks[_FAILS].progress.ask_to_stop()
        for rank in ranks:
            assert rank.wait() == 1
        wait_until(
            lambda: [row["state"] for row in collector.ranks(RUN).values()] == ["failed"] * 3, "all have failed"
        )
        collector.await_drained()
    ended = time.time()
    found = collector.get(f"/api/runs/{RUN}/why")
    assert (found["outcome"], found["first"]["rank"]) == ("failed", _FAILS)
    assert found["first"]["cause"] == "ValueError: the loss is not a number"
    assert asked - _SLACK_S <= found["first"]["at"] <= ended + _SLACK_S
    assert [0 <= fate["after"] < ended - asked + _SLACK_S for fate in found["followers"]] == [True, True]
    for row in collector.ranks(RUN).values():
        assert begun - _SLACK_S <= row["started_at"] <= asked
        assert asked - _SLACK_S <= row["ended_at"] <= ended + _SLACK_S
    for curve in collector.get(f"/api/runs/{RUN}/metrics?keys=loss&buckets=0")["series"]:
        assert begun - _SLACK_S <= curve["time"][0] <= curve["time"][-1] <= ended + _SLACK_S
    lines = collector.get(f"/api/runs/{RUN}/logs")["lines"]
    assert [lines[0]["rank"], *{line["rank"] for line in lines}] == [_FAILS, 0, 1, 2]
    assert all(asked - _SLACK_S <= line["time"] <= ended + _SLACK_S for line in lines)
