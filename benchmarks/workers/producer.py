"""A rank that logs as fast as it can, then finishes."""

from __future__ import annotations

import time

import allranks
from benchmarks.workers.lines import answer, arguments, await_word


def main() -> None:
    told = arguments()
    run = allranks.init(project="bench", id="throughput", rank=told["number"], world_size=told["producers"])
    deadline = time.monotonic() + 20
    while not run.status()["connected"]:
        if time.monotonic() > deadline:
            raise SystemExit("the collector does not answer")
        time.sleep(0.01)
    values = {f"metric/{index}": 0.1 * index for index in range(told["keys"])}
    answer({"ready": True})
    await_word()
    begun = time.time()
    for _ in range(told["events"]):
        run.log(values)
    logged = time.time()
    run.finish(timeout=told["limit_s"])
    # finish() returns as soon as all is acked; the benchmark counts what has been stored.
    answer({"begun": begun, "logged": logged, "acked": time.time()})


if __name__ == "__main__":
    main()
