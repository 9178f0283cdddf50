"""Times `import allranks`, `init()` with a collector up, and `finish()` once all is acked, in a fresh process."""

from __future__ import annotations

import time

from benchmarks.workers.lines import answer

EVENTS = 100


def main() -> None:
    begun = time.perf_counter()
    import allranks

    imported = time.perf_counter()
    run = allranks.init(project="bench")
    started = time.perf_counter()
    for step in range(EVENTS):
        run.log({"loss": 1 / (step + 1)})
    deadline = time.monotonic() + 20
    while (status := run.status())["acked"] < status["logged"] or not status["connected"]:
        if time.monotonic() > deadline:
            raise SystemExit("the collector does not ack")
        time.sleep(0.01)
    ending = time.perf_counter()
    run.finish()
    ended = time.perf_counter()
    answer({"import": imported - begun, "init": started - imported, "finish": ended - ending})


if __name__ == "__main__":
    main()
