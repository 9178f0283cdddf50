"""Ranks that step for a while and then stand still until the test asks them to go on; each says something else of it.

    python -m tests.faults.programs.pausing PROGRESS HOW…

Rank 0 takes the first HOW, rank 1 the second. The phase is PAUSING while they stand. Who evaluates goes from function
to function meanwhile, the others stay in one: one that writes there writes a file, one that spins computes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from pathlib import Path

from tests.support.pace import Pace
from tests.support.progress import PHASE, STOP, Progress

import allranks

PAUSING = 1
_STEPS, _STEP_S = 100, 0.02
_CHUNK = bytes(512 * 1024)
_MANY = _CHUNK * 32
_FILE = os.memfd_create("checkpoint")


def _forward() -> None:
    time.sleep(_STEP_S)


def _backward() -> None:
    time.sleep(1.5 * _STEP_S)


def _wait(how: str) -> None:
    if how == "evaluates":
        _forward()
        _backward()
    elif how == "spins":
        hashlib.sha256(_MANY).digest()  # without the interpreter
    else:
        if how == "writes":
            os.pwrite(_FILE, _CHUNK, 0)
        time.sleep(_STEP_S)


def main(path: str, *hows: str) -> None:
    """Steps, stands, and steps again."""
    progress = Progress(Path(path))
    how = hows[int(os.environ["RANK"])]
    run = allranks.init(project="faults")
    pace, step = Pace(run), 0
    while not (pace.is_known and step >= _STEPS):
        _step(run, step)
        step += 1
    if how == "announced":
        allranks.expect(600)
    with run.section("checkpoint") if how == "section" else contextlib.nullcontext():
        progress.cells[PHASE] = PAUSING
        while not progress.cells[STOP]:
            _wait(how)
    for later in range(step, step + _STEPS):
        _step(run, later)
    run.finish()


def _step(run: allranks.Run, step: int) -> None:
    run.log({"i": step}, step)
    time.sleep(_STEP_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
