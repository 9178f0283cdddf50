"""A chart's question: one key of 64 ranks × 20,000 steps in 1,000 buckets, over HTTP, with 20 M other points stored.

Mean, min, max and the ranks that had them; the time is the client's, from the request to the parsed JSON.
"""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

from benchmarks.figures import Figure, Measured, Options, at_most
from benchmarks.processes import run_worker, running_collector, temporary_home
from benchmarks.samples import spread

RANKS = 64
STEPS = 20_000
BUCKETS = 1000
# The asked key is one of ten that the run logs; an earlier run fills the rest of the 20 M points.
_KEYS = 10
_OTHER_POINTS = 20_000_000


def measure(options: Options) -> Measured:
    """The median of 20 questions, once the collector has answered one."""
    steps = options.pick(STEPS, STEPS // 20)
    others = options.pick(_OTHER_POINTS, _OTHER_POINTS // 20) - RANKS * steps * (_KEYS - 1)
    runs = [
        {"run": "earlier", "ranks": RANKS, "steps": others // (RANKS * _KEYS), "keys": _KEYS},
        {"run": "asked", "ranks": RANKS, "steps": steps, "keys": _KEYS},
    ]
    with temporary_home() as home:
        begun = time.monotonic()
        filled = run_worker("fill_store", {"runs": runs}, home=home, timeout_s=300)
        filled["seconds"] = time.monotonic() - begun
        with running_collector(home) as collector:
            question = f"/api/runs/asked/metrics?key=metric/3&buckets={BUCKETS}&reduce=ranks"
            times: list[float] = []
            size = 0
            for _ in range(options.pick(20, 5) + 1):
                begun = time.perf_counter()
                with urllib.request.urlopen(collector.endpoint.http + question, timeout=60) as response:
                    body = response.read()
                answer: dict[str, Any] = json.loads(body)
                times.append(time.perf_counter() - begun)
                size = len(body)
                _check(answer, steps)
            memory_mb = collector.resident_mb
    first, *warm = times
    ms = spread(warm, 1e3)
    figure = Figure(
        f"chart of 1 key × {RANKS} ranks × {STEPS:,} steps in {BUCKETS:,} buckets, over HTTP",
        ms.median,
        "ms",
        at_most(150),
        note=f"the first {1e3 * first:.0f} ms, the slowest {ms.max:.0f} ms; {filled['points'] / 1e6:.1f} M points",
    )
    details = {"ms": [1e3 * taken for taken in times], "filled": filled, "bytes": size, "resident_mb": memory_mb}
    return Measured([figure], details)


def _check(answer: dict[str, Any], steps: int) -> None:
    """An answer that leaves something out would be fast."""
    (curve,) = answer["series"]
    counted = sum(curve["count"])
    if counted != RANKS * steps or not BUCKETS / 2 <= len(curve["mean"]) <= 2 * BUCKETS:
        raise RuntimeError(f"{counted} points in {len(curve['mean'])} buckets are no answer to the question")
