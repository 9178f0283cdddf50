"""Many simulated ranks in one process, each with the two sockets of a real one, that say once a second how they are.

They go on until a line comes, for a collector judges the silence of those that only wait for the benchmark.
"""

from __future__ import annotations

import os
import select
import sys
import time

from benchmarks.workers.lines import answer, arguments
from benchmarks.workers.many_writers import Crowd, allow_many_files

_BEAT_S = 1.0
_STEPS_PER_BEAT = 10
_SLICE_S = 0.01
_OPEN_S = 240.0


def beat(crowd: Crowd) -> int:
    """One beat a second from each, spread evenly, until a line comes: how many there were."""
    count, turn = len(crowd.writers), 0
    begun = time.monotonic()
    while not select.select([sys.stdin], [], [], _SLICE_S)[0]:
        now = time.monotonic()
        while begun + turn * _BEAT_S / count <= now:
            writer = crowd.writers[turn % count]
            writer.step += _STEPS_PER_BEAT
            writer.beat(phase="step", marks=2 * writer.step, longest=0.2, oom=0)
            turn += 1
        crowd.hear()
    return turn


def main() -> None:
    told = arguments()
    allow_many_files()
    crowd = Crowd(told)
    crowd.open(time.monotonic() + _OPEN_S)
    answer({"ready": True})
    beats = beat(crowd)
    times = os.times()
    answer({"beats": beats, "cpu_s": times.user + times.system})


if __name__ == "__main__":
    main()
