"""A sweep from one parent, which has a run itself: each trial is a run of its own.

Trials are started by subprocess, in pools of processes that are forked and spawned, with several trials each, and by
multiprocessing.Process with and without `finish()`. Each prints the id of its run.
"""

import multiprocessing
import os
import subprocess
import sys
from typing import Any

import allranks

STEPS = 200


def trial(name: str, finishes: bool = True) -> str:
    run = allranks.init(project="neighbours", config={"trial": name})
    for step in range(STEPS):
        run.log({"i": step}, step)
    if finishes:
        run.finish()
    os.write(1, f"{run.id} {name}\n".encode())  # at once, where print() may write the end of the line apart
    return run.id


def main() -> None:
    trial("parent", finishes=False)
    commands = [[sys.executable, __file__, f"subprocess-{n}"] for n in range(2)]
    programs = [subprocess.Popen(command) for command in commands]
    for program in programs:
        if program.wait():
            sys.exit(f"a trial ended with {program.returncode}")
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            pool.map(trial, [f"{method}-pool-{n}" for n in range(4)])
    for method in ("fork", "spawn"):
        context: Any = multiprocessing.get_context(method)
        children = [context.Process(target=trial, args=(f"{method}-{n}", n == 0)) for n in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            if child.exitcode:
                sys.exit(f"a trial ended with {child.exitcode}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trial(sys.argv[1], finishes=sys.argv[1].endswith("0"))
    else:
        main()
