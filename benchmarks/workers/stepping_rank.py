"""A rank that takes regular steps until it is told otherwise.

Told `stick` or `hold`, its main thread stands still, after the answer `stuck_at` (Unix seconds): in Python, or in C
code that holds the interpreter. Told `end`, it ends as programs do.
"""

from __future__ import annotations

import re
import select
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import allranks
from benchmarks.workers.lines import answer, arguments, await_word

FILE = Path(__file__).name
_STEPS_BEFORE_READY = 3


def stick() -> None:
    """Waits for what never comes."""
    time.sleep(3600.0)


def hold() -> None:
    """Is in C code for longer than anybody lives."""
    re.match("(a+)+$", "a" * 200 + "b")


_STANDSTILLS: Mapping[str, Callable[[], None]] = {"stick": stick, "hold": hold}


def main() -> None:
    told = arguments()
    run = allranks.init(project="bench", id=told["run"])
    step = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        time.sleep(told["step_s"])
        run.log({"loss": 1.0 / (step + 1)}, step)
        step += 1
        if step == _STEPS_BEFORE_READY:
            answer({"ready": True})
    word = await_word()
    if word in _STANDSTILLS:
        answer({"stuck_at": time.time()})
        _STANDSTILLS[word]()
    run.finish()
    answer({"steps": step})


if __name__ == "__main__":
    main()
