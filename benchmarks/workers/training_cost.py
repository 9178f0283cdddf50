"""Times blocks of busy steps, with and without a run that logs each step, in turns: A B B A, B A A B, …

A step is pure Python, which holds the GIL: the worst neighbour of the publisher thread. Each block with a run opens
one before its clock starts and finishes it after: `init()` and `finish()` are measured elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import allranks
from allranks.system import SystemSampler
from benchmarks.workers.lines import answer, arguments

_PUBLISHER = "allranks-publisher"
_SAMPLE_EVERY_S = 10.0


def busy(rounds: int) -> float:
    """A step: takes CPU in proportion to `rounds`, and nothing else."""
    value = 0.5
    for _ in range(rounds):
        value = value * 3.7 * (1.0 - value)
    return value


def calibrated(step_s: float) -> int:
    """The rounds that take about `step_s` when nothing disturbs them."""
    rounds = 10_000
    best = min(_timed(rounds) for _ in range(20))
    return max(1, round(rounds * step_s / best))


def _timed(rounds: int) -> float:
    begun = time.perf_counter()
    busy(rounds)
    return time.perf_counter() - begun


def block(steps: int, rounds: int, names: list[str], log: Callable[[dict[str, float]], object]) -> dict[str, float]:
    """Steps that log: the same code with and without a run, for where code lies in memory matters more than a run.

    Making the dict is not the SDK's cost: a step without a run makes it too.
    """
    log_ns: list[int] = []
    clock = time.perf_counter_ns
    cpu, begun = time.process_time(), time.perf_counter()
    for _ in range(steps):
        value = busy(rounds)
        before = clock()
        log(dict.fromkeys(names, value))
        log_ns.append(clock() - before)
    wall_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
    return {"wall_s": wall_s, "cpu_s": cpu_s, "log_s": steps * median(log_ns) / 1e9, "publisher_s": 0.0}


def plain_block(steps: int, rounds: int, names: list[str]) -> dict[str, float]:
    """Without a run: `len` stands for a call that costs next to nothing."""
    return block(steps, rounds, names, len)


def logging_block(steps: int, rounds: int, names: list[str]) -> dict[str, float]:
    """With a run: also the publisher's own CPU time."""
    run = allranks.init(project="bench")
    deadline = time.monotonic() + 20
    while not run.status()["connected"]:
        if time.monotonic() > deadline:
            raise SystemExit("the collector does not answer")
        time.sleep(0.01)
    run.log(dict.fromkeys(names, 0.5))
    time.sleep(0.2)  # the publisher has started by then, psutil included
    publisher = next(thread for thread in threading.enumerate() if thread.name == _PUBLISHER)
    clock_id = time.pthread_getcpuclockid(publisher.ident or 0)
    publisher_cpu = time.clock_gettime(clock_id)
    taken = block(steps, rounds, names, run.log)
    taken["publisher_s"] = time.clock_gettime(clock_id) - publisher_cpu
    run.finish()
    return taken


def sample_s() -> float:
    """CPU seconds of one look at the system, which the publisher takes every ten seconds."""
    sampler = SystemSampler()
    taken: list[float] = []
    for _ in range(10):
        begun = time.thread_time()
        sampler.sample()
        taken.append(time.thread_time() - begun)
    return median(taken)


def main() -> None:
    told = arguments()
    rounds = calibrated(told["step_s"])
    steps: int = told["steps"]
    names = [f"metric/{index}" for index in range(told["keys"])]
    plain_block(steps, rounds, names)
    rounds_of_four: list[dict[str, Any]] = []
    for number in range(told["rounds"]):
        # A B B A, then B A A B: whatever drifts evenly adds to both alike.
        order = (plain_block, logging_block) if number % 2 else (logging_block, plain_block)
        taken = [measure(steps, rounds, names) for measure in (*order, *reversed(order))]
        sums = [{name: taken[a][name] + taken[b][name] for name in taken[a]} for a, b in ((0, 3), (1, 2))]
        without, with_run = sums if number % 2 else reversed(sums)
        rounds_of_four.append({"without": without, "with": with_run})
    answer({"steps": 2 * steps, "rounds": rounds_of_four, "sample_share": sample_s() / _SAMPLE_EVERY_S})


if __name__ == "__main__":
    main()
