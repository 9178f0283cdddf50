"""Programs that are interrupted at one moment after the other, each forked from this one, which has no run itself.

python train.py init    while `init` is called, or soon after
python train.py finish  while `finish` is called, or soon after
python train.py exit    while the program ends without it

Each is a process group of its own, and is interrupted as a terminal does it. Prints for each of them, by the id of
its run, how it ended and for how many events log() had returned.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import sys
import time

import allranks

PROGRAMS, EVENTS = 24, 500
BEGUN, ENDED = 1, 2
what = sys.argv[-1]
returned = memoryview(mmap.mmap(-1, 8 * PROGRAMS)).cast("q")
# How far the program at hand is.
phase = memoryview(mmap.mmap(-1, 8)).cast("q")


def log(run: allranks.Run, number: int) -> None:
    for step in range(EVENTS):
        run.log({"i": step}, step)
        returned[number] = step + 1


def program(number: int) -> None:
    name = f"{what}-{number}"
    if what == "init":
        phase[0] = BEGUN
        run = allranks.init(project="neighbours", id=name)
        phase[0] = ENDED
        log(run, number)
        return
    run = allranks.init(project="neighbours", id=name)
    log(run, number)
    phase[0] = BEGUN
    if what == "finish":
        run.finish()
        phase[0] = ENDED


def await_phase(child: int, wanted: int) -> None:
    while phase[0] < wanted and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.0005)


def run_and_interrupt(number: int, moment_s: float | None) -> float:
    """Interrupts a program so long after it has begun; None lets it go on. The seconds for which it was at it."""
    phase[0] = 0
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        program(number)
        return -1.0
    await_phase(child, BEGUN)
    begun = time.monotonic()
    if moment_s is None:
        await_phase(child, ENDED)
    else:
        time.sleep(moment_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGINT)
    seconds = time.monotonic() - begun
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(f"{what}-{number} {code} {returned[number]}", flush=True)
    return seconds


def main() -> None:
    # The first two show how long it takes; the moments are spread over that, and a little more.
    random.seed(7)
    shown: list[float] = []
    for number in range(PROGRAMS):
        seconds = run_and_interrupt(number, random.uniform(0.0, 1.2 * min(shown)) if number >= 2 else None)
        if seconds < 0:
            break
        shown += [seconds] if number < 2 else []


if __name__ == "__main__":
    main()
