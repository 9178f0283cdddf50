"""A rank that forks children which go on with the inherited run, each counting for itself and ending in its own way.

    python -m tests.faults.programs.forking PROGRESS

The rank and its children each log a counter; child N (from 1) logs N × EVENTS of it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.support.progress import RETURNED, Progress

import allranks

EVENTS = 500


def _kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# How children 1, 2, 3 … end; None returns from the program.
ENDINGS: tuple[Callable[[], object] | None, ...] = (None, lambda: os._exit(0), lambda: sys.exit(0), _kill_itself)


def _count(run: allranks.Run, begin: int, end: int, progress: Progress | None = None) -> None:
    for step in range(begin, end):
        run.log({"i": step, "half": step / 2}, step)
        if progress is not None:
            progress.cells[RETURNED] = step + 1


def main(path: str) -> None:
    """Logs, forks, logs on, and waits for the children."""
    progress = Progress(Path(path))
    run = allranks.init(project="faults")
    is_busy = True

    def be_busy() -> None:
        while is_busy:
            run.log({"busy": 1.0}, 0)

    # Forks that come in the middle of another thread's log() must not hang their children.
    busy = threading.Thread(target=be_busy)
    busy.start()
    _count(run, 0, EVENTS, progress)
    children: list[int] = []
    for number, ending in enumerate(ENDINGS, 1):
        child = os.fork()
        if child == 0:
            _count(run, 0, number * EVENTS)
            is_busy = False
            if ending is not None:
                ending()
            return
        children.append(child)
        _count(run, number * EVENTS, (number + 1) * EVENTS, progress)
    for child in children:
        os.waitpid(child, 0)
    is_busy = False
    busy.join()
    allranks.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
