"""What a `log()` of five floats costs its caller, flat out.

Held against one msgpack pack and one write of the same event, timed in the same process in blocks that take turns;
and against wandb offline, in a process of its own right after.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.processes import run_worker, running_collector, temporary_home

KEYS = 5


def measure(options: Options) -> Measured:
    """Median and p99 of `log()`, and how they stand to the baseline and to wandb."""
    details: dict[str, Any] = {}
    with temporary_home() as home, running_collector(home):
        told = {"keys": KEYS, "calls": options.pick(200_000, 20_000), "modules": []}
        taken = run_worker("log_call", told, home=home, timeout_s=120)
        details["us"] = taken
        if importlib.util.find_spec("torch") is not None:
            details["us_with_torch"] = run_worker(
                "log_call", {**told, "modules": ["torch"]}, home=home, timeout_s=180
            )
    median, baseline = taken["log"]["median"], taken["baseline"]["median"]
    figures = [
        Figure(
            f"log() of {KEYS} floats, median, over one pack and one write",
            median / baseline,
            "×",
            at_most(1.7, "of a ready-made event"),
            note=f"{median:.2f} µs over {baseline:.2f} µs; event made anew: {taken['fresh']['median']:.2f} µs",
        ),
        Figure(f"log() of {KEYS} floats, median", median, "µs"),
        Figure(
            f"log() of {KEYS} floats, p99",
            taken["log"]["p99"],
            "µs",
            at_most(10, "on a quiet machine"),
            note=f"baseline {taken['baseline']['p99']:.2f} µs",
        ),
    ]
    if "us_with_torch" in details:
        loaded: dict[str, dict[str, float]] = details["us_with_torch"]
        figures.append(
            Figure(
                f"log() of {KEYS} floats where torch is loaded, median, over one pack and one write",
                loaded["log"]["median"] / loaded["baseline"]["median"],
                "×",
                note=f"{loaded['log']['median']:.2f} µs over {loaded['baseline']['median']:.2f} µs",
            )
        )
    if options.peer_python is not None:
        with temporary_home() as home:
            asked = {"tracker": "wandb", "keys": KEYS, "calls": options.pick(20_000, 2000), "per_s": 0}
            wandb = run_worker("tracker", asked, home=home, timeout_s=180, python=options.peer_python)
        details["wandb_us"] = wandb["us"]
        figures.append(
            Figure(
                f"wandb offline's log() of {KEYS} floats, median, over ours",
                wandb["us"]["median"] / median,
                "×",
                at_least(25),
                note=f"{wandb['us']['median']:.1f} µs",
            )
        )
    return Measured(figures, details)
