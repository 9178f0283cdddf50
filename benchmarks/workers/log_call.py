"""Times `log()` call by call, in turn with the least that any logger must do: one pack and one write.

The baseline is a ready-made msgpack Packer and an appending descriptor. The event is ready-made too, its step and
time included; a second one makes them anew for each call, as every logger must.
"""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path

import msgpack

import allranks
from benchmarks.samples import spread
from benchmarks.workers.lines import answer, arguments

_BLOCK = 50
_WARM_UP_BLOCKS = 40


def main() -> None:
    told = arguments()
    for module in told["modules"]:
        importlib.import_module(module)
    run = allranks.init(project="bench")
    deadline = time.monotonic() + 10
    while not run.status()["connected"] and time.monotonic() < deadline:
        time.sleep(0.01)
    taken = measure(run, told["keys"], told["calls"])
    run.finish()
    answer({name: spread(times, 1e-3).as_dict() for name, times in taken.items()})


def measure(run: allranks.Run, keys: int, calls: int) -> dict[str, list[int]]:
    """Nanoseconds of each call, in blocks that take turns. Each kind is written out: a call more would count."""
    log = run.log
    pack = msgpack.Packer(autoreset=True).pack
    path = Path(os.environ["ALLRANKS_HOME"]) / "baseline"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    write, clock, time_ns = os.write, time.perf_counter_ns, time.time_ns
    values = {f"metric/{index}": 0.1 * index for index in range(keys)}
    event = (0, 1000, time_ns(), values)
    taken: dict[str, list[int]] = {"log": [], "baseline": [], "fresh": []}
    logs, baselines, fresh = taken.values()
    for block in range(-_WARM_UP_BLOCKS, calls // _BLOCK):
        for _ in range(_BLOCK):
            begin = clock()
            log(values)
            logs.append(clock() - begin)
        for _ in range(_BLOCK):
            begin = clock()
            write(fd, pack(event))
            baselines.append(clock() - begin)
        for step in range(_BLOCK):
            begin = clock()
            write(fd, pack((0, step, time_ns(), values)))
            fresh.append(clock() - begin)
        if block == -1:
            for times in taken.values():
                times.clear()
    os.close(fd)
    path.unlink()
    return taken


if __name__ == "__main__":
    main()
