"""Ctrl-C at any moment, and helpers that are killed: nothing hangs, nothing that log() accepted is lost."""

from __future__ import annotations

import itertools
import os
import re
import signal
from collections import Counter as Tally
from pathlib import Path

import pytest
from tests.scenarios.programs import interrupted_often
from tests.support import processes, scenario
from tests.support.stored_files import await_files
from tests.support.waiting import wait_until

_TEE = "tee.program"
_OURS = re.compile("sdk/allranks/|bus/allranks_bus/")
_QUIET = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}


@pytest.mark.parametrize("what", ["init", "finish", "exit"])
def test_a_ctrl_c_at_any_moment_ends_a_program_as_python_does_and_costs_no_event(home: Path, what: str) -> None:
    scenario.start_collector(home)
    ended = scenario.run(home, "interrupted_often.py", what, env=_QUIET)
    assert ended.exit_code == 0, ended.stderr
    assert not ended.left
    for sign in ("dropped", "cannot be sent", "Fatal"):
        assert sign not in ended.stderr
    # Python itself and other libraries end by callbacks too, and say what came into the middle of one.
    assert not [told for told in _exceptions_ignored(ended.stderr) if _OURS.search(told)]
    told = {run: (int(code), int(events)) for run, code, events in map(str.split, ended.stdout.splitlines())}
    assert len(told) == interrupted_often.PROGRAMS
    codes = Tally(code for code, _ in told.values())
    assert codes.keys() <= {0, -signal.SIGINT}
    # At its end a program has done its work: there, an interrupt ends the waiting alone.
    assert what == "exit" or codes[-signal.SIGINT] >= interrupted_often.PROGRAMS // 10
    scenario.await_ended(home)
    with scenario.stored(home) as stored:
        for run, (_, returned) in told.items():
            # An interrupt may come between the name of a metric and its first value.
            counters = [counter for counter in stored.counters(run) if len(counter.steps)]
            events = sum(len(counter.steps) for counter in counters)
            assert all(counter.is_unbroken for counter in counters)
            assert len(counters) == int(events > 0)
            assert events - returned in (0, 1), (run, events, returned)


def _exceptions_ignored(stderr: str) -> list[str]:
    """What Python has told of each exception that it could not pass on."""
    return [
        re.split("^KeyboardInterrupt", told, maxsplit=1, flags=re.MULTILINE)[0]
        for told in stderr.split("Exception ignored")[1:]
    ]


def _last_line(program: scenario.Program) -> int:
    return max(map(int, re.findall(r"^line (\d+)$", program.stdout, re.MULTILINE)), default=-1)


def _helper(home: Path, kind: str, killed: set[int]) -> int | None:
    """The pid of a helper of this kind that has not been killed yet; None while there is none."""
    pids = (pid for pid in processes.with_home(home) if pid not in killed)
    return next((pid for pid in pids if kind in processes.command_line(pid)), None)


def test_each_helper_may_be_killed_and_all_that_was_logged_and_written_is_stored(home: Path) -> None:
    kinds = ("allranks_collector", _TEE, "allranks_bus.files.shipper")
    killed: set[int] = set()
    with scenario.started(home, "helped.py") as program:
        for kind, number in itertools.product(kinds, (signal.SIGTERM, signal.SIGKILL)):
            pid = wait_until(lambda: _helper(home, kind, killed), f"there is another {kind}", timeout_s=60)  # noqa: B023
            os.kill(pid, number)
            if (kind, number) != (_TEE, signal.SIGTERM):  # which it ignores: it has the last words to keep
                killed.add(pid)
            line = _last_line(program)
            wait_until(lambda: _last_line(program) > line + 300, "the program goes on", timeout_s=60)  # noqa: B023
        (program.directory / "stop").touch()
        ended = program.wait()
    assert ended.exit_code == 0, ended.stderr
    assert not ended.left
    assert "Traceback" not in ended.stderr
    steps = _last_line(program) + 1
    (directory,) = (home / "runs").iterdir()
    written = {f"model-{step}.bin": step.to_bytes(8, "big") * 50_000 for step in range(0, steps, 200)}
    assert await_files(home, directory.name, written) == written
    with scenario.stored(home) as stored:
        assert stored.runs() == [directory.name]
        (counter,) = stored.counters(directory.name)
        assert counter.is_unbroken
        assert len(counter.steps) == steps
        assert stored.states(directory.name, 0)[-1] == "finished"
