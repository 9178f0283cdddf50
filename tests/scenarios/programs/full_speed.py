"""Eight ranks that log as fast as they can, none of which calls `finish()`: they end in four ways."""

import multiprocessing
import os
import signal
import sys
from typing import Any

import allranks

RANKS, EVENTS = 8, 10_000


def rank_of(rank: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(RANKS), LOCAL_RANK=str(rank))
    run = allranks.init(project="neighbours")
    for step in range(EVENTS):
        run.log({"i": step, "loss": 1 / (step + 1)}, step)
    if rank % 4 == 1:
        os._exit(0)
    if rank % 4 == 2:
        sys.exit(0)
    if rank % 4 == 3:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    context: Any = multiprocessing.get_context(sys.argv[1])
    ranks = [context.Process(target=rank_of, args=(rank,)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0, -signal.SIGKILL] * 2
