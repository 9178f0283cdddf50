"""Ranks that step for a while and then stand still until the test asks them to go on; each says something else of it.

    python -m tests.faults.programs.pausing PROGRESS HOW…

Rank 0 takes the first HOW, rank 1 the second. The phase is PAUSING while they stand.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from tests.support.progress import PHASE, STOP, Progress

import allranks

PAUSING = 1
_STEPS, _STEP_S = 100, 0.02


def main(path: str, *hows: str) -> None:
    """Steps, stands, and steps again."""
    progress = Progress(Path(path))
    how = hows[int(os.environ["RANK"])]
    run = allranks.init(project="faults")
    for step in range(2 * _STEPS):
        if step == _STEPS:
            if how == "announced":
                allranks.expect(600)
            with run.section("checkpoint") if how == "section" else contextlib.nullcontext():
                progress.cells[PHASE] = PAUSING
                while not progress.cells[STOP]:
                    time.sleep(_STEP_S)
        run.log({"i": step}, step)
        time.sleep(_STEP_S)
    run.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
