"""The two lines: begin a run, log to it. Everything else happens by itself."""

from __future__ import annotations

import math
import random

import allranks


def main() -> None:
    run = allranks.init(project="quickstart", config={"lr": 0.1, "steps": 2000})
    for step in range(run.config.steps):
        loss = math.exp(-step / 400) + random.random() * 0.05
        run.log({"loss": loss, "accuracy": 1 - loss / 1.1}, step)
    run.summary["note"] = "as good as it gets"
    run.finish()
    print(f"see {run.url or 'allranks runs'}")


if __name__ == "__main__":
    main()
