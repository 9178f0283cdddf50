"""Times `log()` of one tracker, allranks or a peer in its offline or local mode, call by call.

Flat out where `per_s` is 0; else at a steady pace, waiting asleep between the calls as a training waits for its GPU.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.samples import spread
from benchmarks.workers.lines import answer, arguments

Values = dict[str, float]
Log = Callable[[Values, int], Any]
Finish = Callable[[], Any]

_HOME = Path(os.environ["ALLRANKS_HOME"])


def baseline() -> tuple[Log, Finish]:
    """No tracker: one pack and one write, to see what the pace itself costs on this machine."""
    import msgpack

    pack, write = msgpack.Packer(autoreset=True).pack, os.write
    fd = os.open(_HOME / "baseline", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log(values: Values, step: int) -> None:
        write(fd, pack((0, step, time.time_ns(), values)))

    return log, lambda: os.close(fd)


def allranks() -> tuple[Log, Finish]:
    import allranks

    run = allranks.init(project="bench")
    return run.log, run.finish


def wandb() -> tuple[Log, Finish]:
    module = _peer("wandb")
    run = module.init(project="bench", mode="offline", dir=str(_HOME), settings=module.Settings(silent=True))
    return _with_step(run), run.finish


def swanlab() -> tuple[Log, Finish]:
    run = _peer("swanlab").init(project="bench", mode="offline", logdir=str(_HOME / "swanlab"))
    return _with_step(run), run.finish


def tensorboard() -> tuple[Log, Finish]:
    """The writer that torch's SummaryWriter stands on: one event per scalar, as its `add_scalar` makes them."""
    event, summary = _peer("tensorboard.compat.proto.event_pb2").Event, _peer("tensorboard.compat.proto.summary_pb2")
    writer = _peer("tensorboard.summary.writer.event_file_writer").EventFileWriter(str(_HOME / "tensorboard"))

    def log(values: Values, step: int) -> None:
        for name, value in values.items():
            one = summary.Summary(value=[summary.Summary.Value(tag=name, simple_value=value)])
            writer.add_event(event(wall_time=time.time(), step=step, summary=one))

    return log, writer.close


def trackio() -> tuple[Log, Finish]:
    module = _peer("trackio")
    return _with_step(module.init(project="bench", embed=False)), module.finish


def _peer(module: str) -> Any:
    """A peer's module: there is one in .venv-bench alone."""
    return importlib.import_module(module)


def _with_step(run: Any) -> Log:
    def log(values: Values, step: int) -> None:
        run.log(values, step=step)

    return log


# Imported only where it is asked for: each lives in a process of its own.
TRACKERS: dict[str, Callable[[], tuple[Log, Finish]]] = {
    "baseline": baseline,
    "allranks": allranks,
    "wandb": wandb,
    "swanlab": swanlab,
    "tensorboard": tensorboard,
    "trackio": trackio,
}


def main() -> None:
    told = arguments()
    log, finish = TRACKERS[told["tracker"]]()
    names = [f"metric/{index}" for index in range(told["keys"])]
    warm_up = min(200, told["calls"] // 5)
    calls: int = told["calls"]
    for step in range(warm_up):
        log(dict.fromkeys(names, 0.5), step)
    # The helpers that a tracker has started are done with starting by then.
    time.sleep(1.0)
    begun = time.perf_counter()
    times = time_calls(log, names, range(warm_up, warm_up + calls), told["per_s"])
    logged = time.perf_counter()
    finish()
    finished = time.perf_counter()
    answer(
        {
            "us": spread(times, 1e-3).as_dict(),
            "events_per_s_logged": calls / (logged - begun),
            "events_per_s_finished": calls / (finished - begun),
        }
    )


def time_calls(log: Log, names: list[str], steps: range, per_s: float) -> list[int]:
    """Nanoseconds of each call; the values are new each time, as in a training."""
    clock, times = time.perf_counter_ns, list[int]()
    period_s = 1 / per_s if per_s else 0.0
    due = time.perf_counter()
    for step in steps:
        values = {name: index / (step + 1) for index, name in enumerate(names)}
        if period_s:
            due += period_s
            time.sleep(max(0.0, due - time.perf_counter()))
        begin = clock()
        log(values, step)
        times.append(clock() - begin)
    return times


if __name__ == "__main__":
    main()
