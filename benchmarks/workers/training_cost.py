"""Times blocks of busy steps, with and without a run that logs each step, in turns: A B, B A, A B, …

A step is pure Python, which holds the GIL: the worst neighbour of the publisher thread. Each block with a run opens
one before its clock starts and finishes it after: `init()` and `finish()` are measured elsewhere.
"""

from __future__ import annotations

import threading
import time
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


def plain_block(steps: int, rounds: int) -> dict[str, float]:
    """Without a run."""
    cpu, begun = time.process_time(), time.perf_counter()
    for _ in range(steps):
        busy(rounds)
    return {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}


def logging_block(steps: int, rounds: int, keys: int) -> dict[str, float]:
    """With a run: also how long the calls took, and the publisher's own CPU time."""
    run = allranks.init(project="bench")
    deadline = time.monotonic() + 20
    while not run.status()["connected"]:
        if time.monotonic() > deadline:
            raise SystemExit("the collector does not answer")
        time.sleep(0.01)
    names = [f"metric/{index}" for index in range(keys)]
    run.log(dict.fromkeys(names, 0.5))
    time.sleep(0.2)  # the publisher has started by then, psutil included
    publisher = next(thread for thread in threading.enumerate() if thread.name == _PUBLISHER)
    clock_id = time.pthread_getcpuclockid(publisher.ident or 0)
    # The loop is the one above with the dict and the call: making the dict is a part of what logging costs.
    log_ns: list[int] = []
    clock = time.perf_counter_ns
    publisher_cpu = time.clock_gettime(clock_id)
    cpu, begun = time.process_time(), time.perf_counter()
    for _ in range(steps):
        value = busy(rounds)
        before = clock()
        run.log(dict.fromkeys(names, value))
        log_ns.append(clock() - before)
    taken = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    taken["publisher_s"] = time.clock_gettime(clock_id) - publisher_cpu
    taken["log_s"] = steps * median(log_ns) / 1e9
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
    plain_block(steps // 2, rounds)
    pairs: list[dict[str, Any]] = []
    for number in range(told["pairs"]):
        if number % 2:
            with_run = logging_block(steps, rounds, told["keys"])
            without = plain_block(steps, rounds)
        else:
            without = plain_block(steps, rounds)
            with_run = logging_block(steps, rounds, told["keys"])
        pairs.append({"without": without, "with": with_run})
    answer({"rounds": rounds, "steps": steps, "pairs": pairs, "sample_share": sample_s() / _SAMPLE_EVERY_S})


if __name__ == "__main__":
    main()
