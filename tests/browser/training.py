"""A small training: `python -m tests.browser.training`. It logs until its standard input ends, and finishes then."""

from __future__ import annotations

import math
import select
import sys

import allranks

STEP_S = 0.02


def main() -> None:
    run = allranks.init(project="browser", name="live", config={"lr": 0.1, "model": {"depth": 4}})
    step = 0
    while not select.select([sys.stdin], [], [], STEP_S)[0]:
        loss = math.exp(-step / 500) + 0.01 * run.rank
        run.log({"train/loss": loss, "train/accuracy": 1 - loss / 2, "lr": 0.1}, step=step)
        step += 1
    run.finish()


if __name__ == "__main__":
    main()
