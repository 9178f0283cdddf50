"""A program that calls init and then starts the ranks of a world itself, which call it too.

    python -m tests.faults.programs.starting PROGRESS

All log until their test asks them to stop; the phase is STARTED once every rank has logged.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

from tests.support.progress import PHASE, RETURNED, STOP, Progress

import allranks

STARTED = 1
RANKS = 2
_STEP_S = 0.05


def work(rank: int, path: str) -> None:
    """One rank, until it is asked to stop."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS))
    progress = Progress(Path(path))
    run = allranks.init(project="faults")
    step = 0
    while not progress.cells[STOP]:
        run.log({"i": step}, step)
        step += 1
        progress.cells[RETURNED] = step
        time.sleep(_STEP_S)


def main(path: str) -> None:
    """Starts the ranks, and waits for them."""
    progress = Progress(Path(path))
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)
    run = allranks.init(project="faults")
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank, path)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    progress.cells[PHASE] = STARTED
    for rank in ranks:
        rank.join()
    run.log({"ranks": RANKS})


if __name__ == "__main__":
    main(*sys.argv[1:])
