"""A rank that is interrupted again and again in the middle of log(), catches it, and goes on with the next step.

    python -m tests.faults.programs.interrupted PROGRESS RETURNED

The byte of a step in the file RETURNED is 1 once its log() has returned; PHASE counts the interrupts.
"""

from __future__ import annotations

import mmap
import signal
import sys
from pathlib import Path

from tests.support.progress import PHASE, RETURNED, STOP, Progress

import allranks

_is_armed = False


def _interrupt(_number: int, _frame: object) -> None:
    """As Python's own handler, but never outside of the loop."""
    global _is_armed
    if _is_armed:
        _is_armed = False
        raise KeyboardInterrupt


def main(path: str, returned_path: str) -> None:
    """Logs until it is asked to stop."""
    global _is_armed
    cells = Progress(Path(path)).cells
    with open(returned_path, "r+b") as file:
        returned = mmap.mmap(file.fileno(), 0)
    run = allranks.init(project="faults")
    signal.signal(signal.SIGINT, _interrupt)
    step = -1
    while not cells[STOP] and step + 1 < len(returned):
        try:
            _is_armed = True
            while not cells[STOP] and step + 1 < len(returned):
                step += 1
                run.log({"i": step, "half": step / 2}, step)
                returned[step] = 1
                cells[RETURNED] += 1
        except KeyboardInterrupt:
            cells[PHASE] += 1
    _is_armed = False
    allranks.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
