"""One collector under 1,000 writers that log ten events of ten keys a second each, for a minute.

Each writer has its own PUSH and SUB connection and sends a batch every 100 ms, as the SDK does. It must keep up, and
its memory must not grow with the time.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.processes import RunningCollector, Worker, running_collector, temporary_home
from benchmarks.samples import slope

WRITERS = 1000
PER_S = 10
KEYS = 10
_PROCESSES = 2
# DuckDB fills its buffers up to its limit first, and the steady part comes after that: with the usual limit of 1 GiB
# that would be in the sixth minute, with this one it is in the first.
_DUCKDB_MB = 128
_STEADY_FROM = 0.5


def measure(options: Options) -> Measured:
    """Delay of acks, backlog at the end, and the collector's memory and CPU meanwhile."""
    seconds = options.pick(60, 10)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        collector = stack.enter_context(running_collector(home, ALLRANKS_MEMORY_LIMIT_MB=str(_DUCKDB_MB)))
        each = WRITERS // _PROCESSES
        told = {"writers": each, "world_size": WRITERS, "keys": KEYS, "seconds": seconds}
        workers = [
            stack.enter_context(Worker("many_writers", {"first": number * each, **told}, home=home))
            for number in range(_PROCESSES)
        ]
        for worker in workers:
            worker.hear(90)
        cpu_s, begun = collector.cpu_s, time.monotonic()
        for worker in workers:
            worker.say()
        samples = _watch(collector, seconds)
        cores = (collector.cpu_s - cpu_s) / (time.monotonic() - begun)
        answers = [worker.hear(60) for worker in workers]
    return Measured(_figures(answers, samples, cores), {"writers": answers, "resident_mb": samples})


def _watch(collector: RunningCollector, seconds: float) -> list[tuple[float, float]]:
    """The collector's memory, twice a second: (seconds since the start, MB)."""
    samples: list[tuple[float, float]] = []
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < seconds:
        samples.append((round(passed, 2), round(collector.resident_mb, 1)))
        time.sleep(0.5)
    return samples


def _figures(answers: list[dict[str, Any]], samples: list[tuple[float, float]], cores: float) -> list[Figure]:
    what = f"{WRITERS:,} writers × {PER_S} events/s × {KEYS} keys"
    rate = sum(answer["events"] / answer["seconds"] for answer in answers)
    behind_s = sum(answer["behind"] for answer in answers) / rate
    unacked = sum(answer["unacked"] for answer in answers)
    p99 = max(answer["ack_ms"]["p99"] for answer in answers)
    middle = sum(answer["ack_ms"]["median"] for answer in answers) / len(answers)
    steady = [sample for sample in samples if sample[0] >= _STEADY_FROM * samples[-1][0]]
    growth = 60 * slope([at for at, _ in steady], [size for _, size in steady])
    sizes = [size for _, size in samples]
    return [
        Figure(f"{what}: logged", rate, "events/s", at_least(0.99 * WRITERS * PER_S, "the load itself")),
        Figure(
            f"{what}: backlog when it ends",
            behind_s,
            "s of events",
            at_most(0.5, "it keeps up"),
            note=f"{unacked} never acked",
        ),
        Figure(f"{what}: delay of acks, p99", p99, "ms", at_most(500), note=f"median {middle:.0f} ms"),
        Figure(
            f"{what}: growth of memory in the steady part",
            growth,
            "MB/min",
            note=f"{steady[0][1]:.0f} → {sizes[-1]:.0f} MB, at most {max(sizes):.0f}; DuckDB may use {_DUCKDB_MB}",
        ),
        Figure(f"{what}: the collector's CPU", cores, "cores"),
    ]
