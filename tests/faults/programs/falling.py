"""One rank of a training that waits for its peers as gloo does: over sockets, which their deaths close.

    python -m tests.faults.programs.falling PROGRESS FOLDER HOW WHO

Rank 0 listens in FOLDER, the others are connected to it; each waits for the others in every step. Once its test asks
rank WHO to stop, that one ends as HOW says, and the others learn of it as peers do: a connection is closed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.progress import RETURNED, STOP, Progress

import allranks

_DEADLINE_S = 60.0


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise() -> None:
    raise ValueError("the loss is not a number")


def _segfault() -> None:
    ctypes.string_at(0)


def _exit() -> None:
    os._exit(3)


def _leave() -> None:
    sys.exit(0)


def _finish_first() -> None:
    allranks.finish()
    os._exit(3)


def _hang() -> None:
    time.sleep(_DEADLINE_S)


ENDINGS: dict[str, Callable[[], object]] = {
    "kill": _kill,
    "raise": _raise,
    "segfault": _segfault,
    "_exit-3": _exit,
    "leave": _leave,
    "finish-and-_exit-3": _finish_first,
    "hang": _hang,
}


def _peers(rank: int, world: int, folder: Path) -> list[socket.socket]:
    """Rank 0's connections to all others; their one to it."""
    path = str(folder / "rank-0")
    if rank == 0:
        listener = socket.socket(socket.AF_UNIX)
        listener.settimeout(_DEADLINE_S)
        listener.bind(path + ".new")
        listener.listen(world)
        Path(path + ".new").rename(path)
        return [listener.accept()[0] for _ in range(world - 1)]
    deadline = time.monotonic() + _DEADLINE_S
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    one = socket.socket(socket.AF_UNIX)
    one.connect(path)
    return [one]


def _all_reduce(peers: list[socket.socket]) -> None:
    for peer in peers:
        peer.sendall(b"x")
    for peer in peers:
        if not peer.recv(1):
            raise RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:4711")


def main(path: str, folder: str, how: str, who: str) -> None:
    """Trains until one falls."""
    progress = Progress(Path(path))
    run = allranks.init(project="faults")
    peers = _peers(run.rank, run.world_size, Path(folder))
    for peer in peers:
        peer.settimeout(_DEADLINE_S)
    step = 0
    while True:
        if progress.cells[STOP] and run.rank == int(who):
            print(f"rank {run.rank} is about to {how}", flush=True)
            ENDINGS[how]()
        _all_reduce(peers)
        run.log({"loss": 1.0 / (step + 1)}, step)
        progress.cells[RETURNED] = step = step + 1
        time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
