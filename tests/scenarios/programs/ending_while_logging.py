"""Programs that end while a thread of theirs logs, one forked after the other.

python train.py daemon|waited-for

Prints for each of them, by the id of its run, for how many events log() had returned when the main thread ended, and
in the end.
"""

from __future__ import annotations

import itertools
import mmap
import os
import sys
import threading
import time

import allranks

PROGRAMS, AFTERWARDS = 12, 200
run: allranks.Run
is_daemon = sys.argv[1] == "daemon"
# Of each program: when its main thread ended, and in the end.
cells = memoryview(mmap.mmap(-1, 16 * PROGRAMS)).cast("q")


def log(number: int) -> None:
    last = None
    for step in itertools.count():
        run.log({"i": step}, step)
        cells[2 * number + 1] = step + 1
        if last is None and not is_daemon and not threading.main_thread().is_alive():
            last = step + AFTERWARDS
        if step == last:
            break


def program(number: int) -> None:
    global run
    run = allranks.init(project="neighbours", id=f"run-{number}")
    threading.Thread(target=log, args=(number,), daemon=is_daemon).start()
    while cells[2 * number + 1] < 100 * number:
        time.sleep(0.001)
    cells[2 * number] = cells[2 * number + 1]


for number in range(PROGRAMS):
    child = os.fork()
    if child == 0:
        program(number)
        break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"program {number} ended with {code}"
else:
    for number in range(PROGRAMS):
        print(f"run-{number}", *cells[2 * number : 2 * number + 2])
