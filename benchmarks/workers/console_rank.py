"""A rank that prints numbered lines, each with the time at which it was printed in it."""

from __future__ import annotations

import random
import time

import allranks
from benchmarks.workers.lines import answer, arguments, await_word

# Not in step with what looks for lines ten times a second.
_PAUSE_S = (0.05, 0.25)


def main() -> None:
    told = arguments()
    run = allranks.init(project="bench", id=told["run"])
    print("the first line")
    answer({"ready": True})
    await_word()
    pause = random.Random(0)
    for number in range(told["lines"]):
        time.sleep(pause.uniform(*_PAUSE_S))
        print(f"[line {number} printed at {time.time():.6f}]", flush=True)
    await_word()
    run.finish()


if __name__ == "__main__":
    main()
