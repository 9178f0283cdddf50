"""Ranks that are not alike: `allranks diff` says in what, and `allranks top` shows the run while it goes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support import scenario
from tests.support.collector import clean_environment
from tests.support.waiting import wait_until

PROGRAM = """
import os, subprocess, sys, time

if len(sys.argv) == 1:
    said = ("WARN", "INFO")
    ranks = [
        subprocess.Popen([sys.executable, "train.py", str(rank)], env={**os.environ, "NCCL_DEBUG": said[rank]})
        for rank in (0, 1)
    ]
    sys.exit(max(rank.wait() for rank in ranks))

import allranks

rank = int(sys.argv[1])
run = allranks.init(id="the-run", project="p", rank=rank, world_size=2, config={"width": 8 + rank})
print("here I am")
step = 0
while not os.path.exists("stop"):
    run.log({"train/loss": 1 / (step + 1), "lr": 0.2 if rank and step >= 20 else 0.1}, step=step)
    run.agree("hash", "other" if rank and step >= 10 else "same")
    step += 1
    time.sleep(0.05)
"""


def allranks(home: Path, *words: str) -> str:
    command = (str(Path(sys.executable).with_name("allranks")), *words)
    done = subprocess.run(
        command, env=clean_environment(home), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_a_terminal(home: Path, *words: str, until: str) -> str:
    """What a command shows there until this is seen; then q is pressed, and it must end well."""
    pid, terminal = pty.fork()
    if pid == 0:
        command = str(Path(sys.executable).with_name("allranks"))
        os.execve(command, [command, *words], {**clean_environment(home), "TERM": "xterm", "LINES": "30"})
    shown, is_pressed, deadline = "", False, time.monotonic() + 60
    try:
        while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            with contextlib.suppress(OSError):  # EIO: it has ended
                data = os.read(terminal, 65536)
                shown += data.decode(errors="replace")
                if until in shown and not is_pressed:
                    os.write(terminal, b"q")
                    is_pressed = True
                if data:
                    continue
            break
        assert is_pressed, shown[-2000:]
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)
    return shown


def test_what_differs_is_told_and_the_run_is_seen_while_it_goes(home: Path) -> None:
    with scenario.started(home, PROGRAM) as program:

        def have_told() -> bool:
            with contextlib.suppress(AssertionError, OSError):
                found: dict[str, Any] = scenario.ask(home, "/api/runs/the-run/differences")
                printed = scenario.ask(home, "/api/runs/the-run/logs")["lines"]
                return bool(found["told"] == 2 and len(found["diverged"]) == 2 and len(printed) == 2)
            return False

        wait_until(have_told, "both ranks have said what surrounds them, and that they are here", timeout_s=90)
        top = allranks(home, "top", "the-run", "--once")
        live = on_a_terminal(home, "top", "the-run", until="2 running")
        (program.directory / "stop").touch()
        program.wait().must_be_well()
    assert "2 of 2 ranks" in top
    assert "■ 2 running" in top
    assert "steps/s" in top
    assert "train/loss" in top
    assert "×2 [0-1] here I am" in top
    assert live.rindex("\x1b[?1049l") > live.rindex("2 running"), "the screen of before is shown again"

    scenario.await_ended(home)
    found = json.loads(allranks(home, "diff", "the-run", "--json"))
    assert [(one["section"], one["name"], one["text"]) for one in found["differences"]] == [
        ("env", "NCCL_DEBUG", "rank 0 has WARN · rank 1 has INFO"),
        ("config", "width", "rank 0 has 8 · rank 1 has 9"),
    ]
    assert [(one["name"], one["step"]) for one in found["diverged"]] == [("hash", 10), ("lr", 20)]
    scenario.end_collector(home)
    # From the file itself.
    assert "rank 0 has WARN · rank 1 has INFO" in allranks(home, "diff", "the-run")
    assert "□ 2 finished" in allranks(home, "top", "the-run")
