"""Events per second, from `log()` in two processes to the ack: committed, with the collector in a third.

Held against the ceiling (benchmarks/ceiling.py), measured in turn with it.
"""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, Measured, Options, at_least
from benchmarks.processes import Worker, free_port_pair, running_collector, temporary_home

PRODUCERS = 2
# Keys of an event, and events of each producer.
EVENTS = {5: 300_000, 100: 40_000}
_LIMIT_S = 120.0


def measure(options: Options) -> Measured:
    """Medians of several turns; in each the ceiling and the real thing come one after the other."""
    figures: list[Figure] = []
    details: dict[str, Any] = {}
    for keys, wanted in EVENTS.items():
        events = options.pick(wanted, wanted // 5)
        turns = [(ceiling(keys, events), real(keys, events)) for _ in range(options.pick(5, 1))]
        shares = [ours["events_per_s"] / theirs["events_per_s"] for theirs, ours in turns]
        rate = median(ours["events_per_s"] for _, ours in turns)
        top = median(theirs["events_per_s"] for theirs, _ in turns)
        note = f"{rate:,.0f} of {top:,.0f} events/s, {rate * keys / 1e6:.2f} M points/s"
        what = f"committed and acked, {PRODUCERS} producers, {keys} keys: share of the ceiling"
        figures.append(Figure(what, median(shares), "×", at_least(0.8), note=note))
        details[f"{keys} keys"] = {"ceiling": [one for one, _ in turns], "real": [one for _, one in turns]}
    return Measured(figures, details)


def ceiling(keys: int, events: int) -> dict[str, Any]:
    """The rate of the ceiling."""
    port = free_port_pair()
    addresses = {"data": f"tcp://127.0.0.1:{port}", "control": f"tcp://127.0.0.1:{port + 1}", "limit_s": _LIMIT_S}
    with temporary_home() as home:
        told = {"events": PRODUCERS * events, **addresses}
        with Worker("ceiling_collector", told, home=home) as collector:
            collector.hear(30)
            times = _produce("ceiling_producer", home, {"keys": keys, "events": events, **addresses})
            served = collector.hear(30)
    return {**_rates(times, events), **served}


def real(keys: int, events: int) -> dict[str, Any]:
    """The rate of allranks; checked against what the collector says it has stored."""
    with temporary_home() as home, running_collector(home) as collector:
        before = collector.cpu_s
        times = _produce("producer", home, {"keys": keys, "events": events, "limit_s": _LIMIT_S})
        with urllib.request.urlopen(f"{collector.endpoint.http}/api/collector", timeout=10) as response:
            status: dict[str, Any] = json.load(response)
        cpu_s = collector.cpu_s - before
    if status["points"] < PRODUCERS * events * keys:
        raise RuntimeError(f"{status['points']} points are stored, and not {PRODUCERS * events * keys}")
    return {**_rates(times, events), "commits": status["commits"], "collector_cpu_s": cpu_s}


def _produce(worker: str, home: Path, told: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs the producers, all from the same moment on; when each began, had logged all, and had all acked."""
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(worker, {"number": number, "producers": PRODUCERS, **told}, home=home))
            for number in range(PRODUCERS)
        ]
        for producer in workers:
            producer.hear(30)
        for producer in workers:
            producer.say()
        return [producer.hear(_LIMIT_S + 30) for producer in workers]


def _rates(times: Sequence[dict[str, Any]], events: int) -> dict[str, Any]:
    begun = min(one["begun"] for one in times)
    logged = max(one["logged"] for one in times)
    acked = max(one["acked"] for one in times)
    return {
        "events_per_s": len(times) * events / (acked - begun),
        "logging_s": logged - begun,
        "acking_s": acked - logged,
    }
