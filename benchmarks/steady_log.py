"""What a `log()` costs at the pace of a training, 200 calls a second, with few keys and with many; and the peers'.

Between two calls the caches have cooled and the publisher has worked: these are the figures that a training meets.
"""

from __future__ import annotations

import contextlib
from typing import Any

from benchmarks.figures import Figure, Measured, Options
from benchmarks.processes import WorkerFailed, run_worker, running_collector, temporary_home

PER_S = 200
KEYS = (5, 100)
PEERS = ("wandb", "swanlab", "tensorboard", "trackio")


def measure(options: Options) -> Measured:
    """Median and p99 of each tracker; all are reported, in a process each, one after the other."""
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    trackers = ("baseline", "allranks", *(PEERS if options.peer_python else ()))
    for keys in KEYS:
        for tracker in trackers:
            taken = _measure(tracker, keys, options)
            details[f"{tracker}, {keys} keys"] = taken
            if "us" in taken:
                us = taken["us"]
                shown = "one pack and one write" if tracker == "baseline" else f"{tracker}: log()"
                what = f"{shown} of {keys} floats at {PER_S}/s, median"
                figures.append(Figure(what, us["median"], "µs", note=f"p99 {us['p99']:.1f}, max {us['max']:,.0f}"))
    return Measured(figures, details)


def _measure(tracker: str, keys: int, options: Options) -> dict[str, Any]:
    told = {"tracker": tracker, "keys": keys, "calls": options.pick(2000, 400), "per_s": PER_S}
    is_ours = tracker not in PEERS
    has_collector = tracker == "allranks"
    with temporary_home() as home, running_collector(home) if has_collector else contextlib.nullcontext():
        try:
            return run_worker(
                "tracker",
                told,
                home=home,
                timeout_s=120,
                python=None if is_ours else options.peer_python,
                WANDB_SILENT="true",
                TRACKIO_DIR=str(home / "trackio"),
            )
        except WorkerFailed as error:
            if is_ours:
                raise
            # A peer that does not work on this machine says nothing about us.
            return {"error": str(error)[-500:]}
