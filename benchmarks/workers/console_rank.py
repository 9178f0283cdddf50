"""A rank that prints numbered lines, and tells at its end when it printed each."""

from __future__ import annotations

import random
import time

import allranks
from benchmarks.workers.lines import answer, arguments, await_word

# Not in step with anything that looks for lines now and then.
_PAUSE_S = (0.05, 0.25)


def main() -> None:
    told = arguments()
    run = allranks.init(project="bench", id=told["run"])
    print(told["first"])
    answer({"ready": True})
    await_word()
    pause = random.Random(0)
    printed_at: list[float] = []
    for number in range(told["lines"]):
        time.sleep(pause.uniform(*_PAUSE_S))
        printed_at.append(time.time())
        print(f"[line {number} printed]", flush=True)
    await_word()
    run.finish()
    answer({"printed_at": printed_at})


if __name__ == "__main__":
    main()
