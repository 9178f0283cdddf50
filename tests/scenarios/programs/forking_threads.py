"""A thread forks children while another one logs; they go on with the run, or begin one of their own.

Prints a line for each process: its pid, what it is, and for how many events log() has returned there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import allranks

CHILDREN, STEPS = 8, 300
is_busy = True


def say(what: str, events: int) -> None:
    """Not print(), whose lock another thread may hold when this process is forked."""
    os.write(1, f"{os.getpid()} {what} {events}\n".encode())


def go_on() -> None:
    for step in range(STEPS):
        run.log({"i": step}, step)
    say("child", STEPS)


def begin_another() -> None:
    own = allranks.init(project="neighbours", config={"is_own": True})
    for step in range(STEPS):
        allranks.log({"i": step}, step)
        run.log({"beside": step}, step)
    own.finish()
    say(own.id, STEPS)


def log() -> None:
    step = 0
    while is_busy:
        run.log({"i": step}, step)
        step += 1
    say("rank", step)


def fork() -> None:
    for number in range(CHILDREN):
        work: Callable[[], None] = begin_another if number % 2 else go_on
        child = os.fork()
        if child == 0:
            work()
            if number < CHILDREN // 2:
                os._exit(0)
            return  # ends the thread, which is the only one here
        children.append(child)


run = allranks.init(project="neighbours")
children: list[int] = []
logging, forking = threading.Thread(target=log), threading.Thread(target=fork)
logging.start()
forking.start()
forking.join()
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
is_busy = False
logging.join()
assert codes == [0] * CHILDREN, codes
