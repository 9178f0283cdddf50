"""From the SIGKILL of a rank until somebody who watches its run is told `dead`, on the collector's own host.

Each rank is a process with the real SDK that takes steps; nobody reaps it, as with a launcher that is busy.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

from benchmarks.figures import Figure, Measured, Options, at_most
from benchmarks.processes import Worker, running_collector, temporary_home
from benchmarks.rank_states import Observer, await_steps, observing
from benchmarks.samples import spread

_RUN = "deaths"
_AT_ONCE = 10
_STEP_S = 0.1
_DEADLINE_S = 60.0
# Not in step with what looks for deaths now and then.
_PAUSE_S = (0.05, 0.6)


def measure(options: Options) -> Measured:
    """The delays of ranks that are killed one after the other, while the others of their run go on."""
    rounds = options.pick(5, 1)
    delays: list[float] = []
    pause = random.Random(0)
    for _ in range(rounds):
        delays += _kill_all(_AT_ONCE, pause)
    seconds = spread(delays)
    note = f"median {1e3 * seconds.median:.0f} ms, slowest {seconds.max:.2f} s; {seconds.count} kills"
    figure = Figure("from SIGKILL to `dead`, same host, p99", seconds.p99, "s", at_most(1.0), note=note)
    return Measured([figure], {"delays_s": delays})


def _kill_all(count: int, pause: random.Random) -> list[float]:
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        collector = stack.enter_context(running_collector(home))
        observer = stack.enter_context(observing(collector.endpoint.http, _RUN))
        told = {"run": _RUN, "step_s": _STEP_S}
        ranks = [
            stack.enter_context(
                Worker("stepping_rank", told, home=home, RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank))
            )
            for rank in range(count)
        ]
        for rank in ranks:
            rank.hear(_DEADLINE_S)
        await_steps(observer, range(count), 1, time.monotonic() + _DEADLINE_S)
        return [_kill(observer, rank, worker, pause) for rank, worker in enumerate(ranks)]


def _kill(observer: Observer, rank: int, worker: Worker, pause: random.Random) -> float:
    time.sleep(pause.uniform(*_PAUSE_S))
    killed_at = time.monotonic()
    os.kill(worker.pid, signal.SIGKILL)
    return observer.see([rank], ["dead"], killed_at + _DEADLINE_S)[rank] - killed_at
