"""Runs one after the other in one process, each finished while threads are logging at full speed.

    python -m tests.faults.programs.finishing PROGRESS REPORT ROUNDS

REPORT becomes a JSON list with, for each run, its status after finish() and the open descriptors of the process.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import allranks

THREADS = 3
_EVENTS_BEFORE = 2000
_SETTLE_S = 20.0


def _log(run: allranks.Run, number: int, counts: list[int], stopping: threading.Event) -> None:
    while not stopping.is_set():
        run.log({f"thread-{number}": counts[number]}, counts[number])
        counts[number] += 1


def _one_run(name: str) -> dict[str, Any]:
    run = allranks.init(project="faults", id=name)
    counts, stopping = [0] * THREADS, threading.Event()
    threads = [threading.Thread(target=_log, args=(run, number, counts, stopping)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    while min(counts) < _EVENTS_BEFORE:
        time.sleep(0.001)
    run.finish()
    stopping.set()
    for thread in threads:
        thread.join()
    return run.status()


def _descriptors(at_most: float) -> int:
    """How many are open, once no more than `at_most` are: a thread of the SDK may close some a moment later."""
    deadline = time.monotonic() + _SETTLE_S
    while (count := len(os.listdir("/proc/self/fd"))) > at_most and time.monotonic() < deadline:  # noqa: PTH208
        time.sleep(0.01)
    return count


def main(_progress: str, report: str, rounds: str) -> None:
    """All runs, one after the other."""
    told: list[dict[str, Any]] = []
    for nth in range(int(rounds)):
        status = _one_run(f"round-{nth}")
        told.append({**status, "descriptors": _descriptors(told[-1]["descriptors"] if told else math.inf)})
    Path(report).write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
