"""What it costs a collector to watch over 4,096 ranks, each of which says once a second how it is.

The ranks are simulated, with the two sockets of a real one each; the collector is a process, and nobody asks it
anything.
"""

from __future__ import annotations

import contextlib
import re
import time
import urllib.request

from benchmarks.figures import Figure, Measured, Options, at_least, at_most
from benchmarks.processes import Worker, running_collector, temporary_home
from benchmarks.rank_states import observing

RANKS = 4096
_PROCESSES = 2
_OPEN_S = 240.0
# They have all come; what that has left to do is done.
_SETTLE_S = 5.0
_BEATS = re.compile(r"^\S*beats_total (\S+)$", re.MULTILINE)


def measure(options: Options) -> Measured:
    """The collector's CPU over a while, how many beats it took in, and what it thinks of the ranks."""
    seconds = options.pick(60, 10)
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        collector = stack.enter_context(running_collector(home))
        each = RANKS // _PROCESSES
        told = {"writers": each, "world_size": RANKS, "keys": 1}
        workers = [
            stack.enter_context(Worker("many_beats", {"first": number * each, **told}, home=home))
            for number in range(_PROCESSES)
        ]
        for worker in workers:
            worker.hear(_OPEN_S)
        time.sleep(_SETTLE_S)
        begun, cpu_s, heard = time.monotonic(), collector.cpu_s, _beats(collector.endpoint.http)
        time.sleep(seconds)
        took_s = time.monotonic() - begun
        cpu_s, heard = collector.cpu_s - cpu_s, _beats(collector.endpoint.http) - heard
        resident_mb = collector.resident_mb
        with observing(collector.endpoint.http, "many-writers") as observer:
            rows = observer.rows()
        for worker in workers:
            worker.say("end")
        answers = [worker.hear(60) for worker in workers]
    not_running = RANKS - sum(row["state"] == "running" for row in rows.values())
    what = f"health of {RANKS:,} ranks at 1 heartbeat/s"
    figures = [
        Figure(
            f"{what}: the collector's CPU",
            100 * cpu_s / took_s,
            "% of one core",
            at_most(25),
            note=f"{1e6 * cpu_s / heard:.0f} µs a heartbeat; {resident_mb:.0f} MB",
        ),
        Figure(f"{what}: heard", heard / took_s, "heartbeats/s", at_least(0.99 * RANKS, "the load itself")),
        Figure(f"{what}: ranks that are not running", not_running, "", at_most(0)),
    ]
    return Measured(figures, {"cpu_s": cpu_s, "seconds": took_s, "resident_mb": resident_mb, "writers": answers})


def _beats(base: str) -> float:
    with urllib.request.urlopen(f"{base}/metrics", timeout=30) as response:
        found = _BEATS.search(response.read().decode())
    if found is None:
        raise RuntimeError("the collector does not tell how many heartbeats it has heard")
    return float(found[1])
