"""One rank that logs a counter as fast as it can, and notes for how many of them log() has returned.

    python -m tests.faults.programs.rank PROGRESS ENDING [STEPS [PAUSE]]

It stops after STEPS events (0: never), or when its test asks it to, and ends as ENDING says. Between two events it
waits for PAUSE seconds.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.progress import DROPPED, PHASE, RETURNED, SLOWEST_NS, STOP, Progress

import allranks

LOOPS, ENDED = 1, 2
_STATUS_EVERY = 1000


def _finish() -> None:
    allranks.finish()


def _return() -> None:
    """By falling off the end of the program."""


def _raise() -> None:
    raise ValueError("the loss is not a number")


def _segfault() -> None:
    ctypes.string_at(0)


def _hang() -> None:
    while True:
        time.sleep(1.0)


def _eat() -> None:
    """Takes memory until there is none."""
    eaten: list[bytes] = []
    while True:
        eaten.append(b"x" * (4 * 1024 * 1024))


ENDINGS: dict[str, Callable[[], object]] = {
    "finish": _finish,
    "return": _return,
    "raise": _raise,
    "exit-3": lambda: sys.exit(3),
    "_exit-3": lambda: os._exit(3),
    "segfault": _segfault,
    "abort": os.abort,
    "hang": _hang,
    "eat": _eat,
}


def main(path: str, ending: str, steps: str = "0", pause: str = "0") -> None:
    """Logs, and ends."""
    pause_s = float(pause)
    progress = Progress(Path(path))
    run = allranks.init(project="faults")
    cells, most = progress.cells, int(steps) or sys.maxsize
    clock, log = time.perf_counter_ns, run.log
    cells[PHASE] = LOOPS
    step = slowest = 0
    while step < most and not cells[STOP]:
        before = clock()
        log({"i": step, "half": step / 2}, step)
        took = clock() - before
        cells[RETURNED] = step = step + 1
        if took > slowest:
            cells[SLOWEST_NS] = slowest = took
        if not step % _STATUS_EVERY:
            cells[DROPPED] = run.status()["dropped"]
        if pause_s:
            time.sleep(pause_s)
    cells[DROPPED] = run.status()["dropped"]
    ENDINGS[ending]()
    cells[PHASE] = ENDED


if __name__ == "__main__":
    main(*sys.argv[1:])
