"""One rank that steps for a while, and then stands somewhere for ever.

    python -m tests.faults.programs.standing PROGRESS PLACE…

Rank 0 takes the first PLACE, rank 1 the second. The phase is STANDING once it is about to stand; by then it has
offered all that it can offer to a collector.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.pace import Pace
from tests.support.progress import PHASE, Progress
from tests.support.waiting import wait_until

import allranks
from allranks_bus.stack_signal import NUMBER, main_of

STANDING = 1
_STEP_S = 0.05


def wait_for_work() -> None:
    queue.Queue[int]().get()


def nap() -> None:
    time.sleep(3600.0)


def hold_gil() -> None:
    re.match("(a+)+$", "a" * 200 + "b")  # for longer than anybody lives, in C code


PLACES: dict[str, Callable[[], None]] = {
    "queue": wait_for_work,
    "nap": nap,
    "gil": hold_gil,
    "own-handler-first": hold_gil,
    "own-handler-later": hold_gil,
}


def _own_handler(*_: object) -> None:
    os._exit(9)


def _has_offer() -> bool:
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if main_of(str(fd.readlink()), os.getpid()) is not None:
                return True
    return False


def main(path: str, *places: str) -> None:
    """Steps, and stands."""
    progress = Progress(Path(path))
    place = places[int(os.environ["RANK"])]
    if place == "own-handler-first":
        signal.signal(NUMBER, _own_handler)
    run = allranks.init(project="faults")
    begun, step = time.monotonic(), 0
    pace = Pace(run)
    while not (pace.is_known and (_has_offer() or place == "own-handler-first")):
        assert time.monotonic() < begun + 60.0, "the signal is not offered, or the collector is not heard"
        run.log({"i": step}, step)
        step += 1
        time.sleep(_STEP_S)
    if place == "own-handler-later":
        signal.signal(NUMBER, _own_handler)
        wait_until(lambda: not _has_offer(), "the offer is withdrawn", timeout_s=60.0)
    assert signal.getsignal(NUMBER) is (_own_handler if place.startswith("own") else signal.SIG_DFL)
    progress.cells[PHASE] = STANDING
    PLACES[place]()


if __name__ == "__main__":
    main(*sys.argv[1:])
