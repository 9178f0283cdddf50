"""`init` in the parent; then eight forked children that print, use `logging`, and log metrics, as on TPUs and in
notebooks.

python train.py os               by os.fork
python train.py multiprocessing  by multiprocessing
python train.py METHOD busy      while a thread of the parent logs without a pause
"""

import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import allranks

CHILDREN, STEPS, LINES = 8, 300, 5
ENDINGS: tuple[Callable[[], object], ...] = (lambda: None, lambda: os._exit(0), lambda: sys.exit(0))

logger = logging.getLogger("train")


def train(index: int, run: Any) -> None:
    for step in range(STEPS):
        run.log({"i": step}, step)
        if step < LINES:
            # In one write, also where nothing is buffered: lines of several processes must not mix.
            print(f"child {index} prints line {step}\n", end="", flush=True)
            logger.info("child %d logs line %d", index, step)
    ENDINGS[index % len(ENDINGS)]()


def fork(index: int, run: Any) -> int:
    pid = os.fork()
    if not pid:
        train(index, run)
        sys.exit()
    return pid


def be_busy(run: Any, is_over: threading.Event) -> None:
    while not is_over.is_set():
        run.log({"busy": 1.0})
        logger.debug("not shown")


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    run = allranks.init(project="boring")
    run.log({"i": 0})
    is_over = threading.Event()
    if "busy" in sys.argv:
        threading.Thread(target=be_busy, args=(run, is_over)).start()
    if sys.argv[1] == "os":
        for pid in [fork(index, run) for index in range(CHILDREN)]:
            assert os.waitpid(pid, 0)[1] == 0
    else:
        context: Any = multiprocessing.get_context("fork")
        children = [context.Process(target=train, args=(index, run)) for index in range(CHILDREN)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
    is_over.set()
    run.log({"i": 1})


if __name__ == "__main__":
    main()
