"""Ranks that train together: each of their steps ends for all at once, at a barrier. One of them loads slowly.

    python -m tests.faults.programs.synchronous PROGRESS BARRIER SLOW SECONDS

BARRIER is the path of a socket that rank 0 listens on; rank SLOW takes so many seconds longer for each batch. They
stop together when the test asks rank 0 to.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from tests.support.progress import RETURNED, STOP, Progress
from tests.support.waiting import wait_until

import allranks

_DATA_S = 0.02
GO, END = b"g", b"e"


class Barrier:
    """Rank 0 hears all others, and then tells them whether to go on."""

    def __init__(self, path: Path, rank: int, world_size: int) -> None:
        self._others: list[socket.socket] = []
        self._first: socket.socket | None = None
        if rank == 0:
            server = socket.socket(socket.AF_UNIX)
            new = path.with_suffix(".new")
            server.bind(str(new))
            server.listen(world_size)
            new.rename(path)
            self._others = [server.accept()[0] for _ in range(world_size - 1)]
        else:
            wait_until(lambda: path.exists(), "rank 0 listens", timeout_s=60.0)
            self._first = socket.socket(socket.AF_UNIX)
            self._first.connect(str(path))

    def pass_(self, *, ends: bool) -> bool:
        """Returns once all ranks have come here; False where they are to end."""
        if self._first is not None:
            self._first.sendall(GO)
            return self._first.recv(1) == GO
        for other in self._others:
            other.recv(1)
        for other in self._others:
            other.sendall(END if ends else GO)
        return not ends


def main(path: str, barrier_path: str, slow: str, seconds: str) -> None:
    """Trains until it is told to end."""
    progress = Progress(Path(path))
    run = allranks.init(project="faults")
    barrier = Barrier(Path(barrier_path), run.rank, run.world_size)
    data_s = _DATA_S + (float(seconds) if run.rank == int(slow) else 0.0)
    step, goes_on = 0, True
    while goes_on:
        with allranks.section("data"):
            time.sleep(data_s)
        with run.section("sync"):
            goes_on = barrier.pass_(ends=bool(progress.cells[STOP]))
        run.log({"i": step}, step)
        progress.cells[RETURNED] = step = step + 1
    run.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
