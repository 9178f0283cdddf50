"""Programs, one after the other, that are forked while a thread of theirs is in the middle of `init`.

The child begins a run of its own, whatever the thread that it does not have was at.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time

import allranks

PROGRAMS, WITHIN_S = 20, 0.06


def begin(name: str) -> None:
    allranks.init(project="neighbours", id=name, console="off")
    allranks.log({"i": 0}, 0)


def program(number: int, moment_s: float) -> int:
    thread = threading.Thread(target=begin, args=(f"parent-{number}",))
    thread.start()
    time.sleep(moment_s)
    child = os.fork()
    if child == 0:
        begin(f"child-{number}")
        allranks.finish()
        os._exit(0)
    thread.join()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


random.seed(7)
for number in range(PROGRAMS):
    moment_s = random.uniform(0.0, WITHIN_S)
    child = os.fork()
    if child == 0:
        sys.exit(program(number, moment_s))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"program {number}: {code}"
