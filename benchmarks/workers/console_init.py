"""Times `init()` with the console that it is told, in a fresh process, with a collector up."""

from __future__ import annotations

import time

from benchmarks.workers.lines import answer, arguments


def main() -> None:
    import allranks

    console = arguments()["console"]
    begun = time.perf_counter()
    run = allranks.init(project="bench", console=console)
    taken = time.perf_counter() - begun
    run.finish()
    answer({"init": taken})


if __name__ == "__main__":
    main()
