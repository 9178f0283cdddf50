"""A rank that takes regular steps until it is told otherwise.

Told `stick`, its main thread stands still, after the answer `stuck_at`; told `end`, it ends as programs do.
"""

from __future__ import annotations

import select
import sys
import time

import allranks
from benchmarks.workers.lines import answer, arguments, await_word

_STEPS_BEFORE_READY = 3


def stand_still() -> None:
    """Waits for what never comes."""
    time.sleep(3600.0)


def main() -> None:
    told = arguments()
    run = allranks.init(project="bench", id=told["run"])
    step = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        time.sleep(told["step_s"])
        run.log({"loss": 1.0 / (step + 1)}, step)
        step += 1
        if step == _STEPS_BEFORE_READY:
            answer({"ready": True})
    if await_word() == "stick":
        answer({"stuck_at": time.monotonic()})
        stand_still()
    run.finish()
    answer({"steps": step})


if __name__ == "__main__":
    main()
