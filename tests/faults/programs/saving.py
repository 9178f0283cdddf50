"""A rank that leaves files in its run's directory and beside it, and ends in one of many ways.

    python -m tests.faults.programs.saving PROGRESS ENDING MEBIBYTES

It fills `run.dir` with a large file and some odd ones, saves one more, and ends as ENDING says (programs/rank.py), or
once its test asks it to.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from tests.faults.programs.rank import ENDED, ENDINGS
from tests.support.progress import PHASE, STOP, Progress

import allranks

LEFT = 1
_MIB = 1024 * 1024


def leave_files(folder: Path, mebibytes: int) -> None:
    """What a training might leave: a checkpoint, a link to it, an empty file, a name from anywhere."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    with (checkpoints / "epoch=1.ckpt").open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(_MIB))
        file.write(b"and a bit")
    (checkpoints / "last.ckpt").symlink_to("epoch=1.ckpt")
    (folder / "empty").touch()
    (folder / "größe 大.txt").write_text("text")


def main(path: str, ending: str, mebibytes: str) -> None:
    """Leaves them, and ends."""
    progress = Progress(Path(path))
    run = allranks.init(project="faults")
    run.log({"loss": 1.0})
    Path("notes.txt").write_text("saved")
    run.save("notes.txt", policy="end")
    leave_files(Path(run.dir), int(mebibytes))
    progress.cells[PHASE] = LEFT
    if ending == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while ending == "wait" and not progress.cells[STOP]:
        time.sleep(0.01)
    ENDINGS["finish" if ending == "wait" else ending]()
    progress.cells[PHASE] = ENDED


if __name__ == "__main__":
    main(*sys.argv[1:])
