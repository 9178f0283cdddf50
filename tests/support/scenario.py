"""Programs as users write and start them: how they end, what they leave, and what is stored of them.

    with scenario.started(home, "spawned_ranks.py", "all") as program:
        ended = program.wait()
    ended.must_be_well()
    with scenario.stored(home) as stored: …

A program is a file of tests/scenarios/programs, or a text. It is put into a folder of its own as `train.py` and runs
there, with an environment that knows of this home and of no launcher. Its output goes to files: a pipe could be held
open by whatever it leaves behind, and would hide that.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import processes
from tests.support.collector import ROOT, clean_environment
from tests.support.stored import Stored, stored_in
from tests.support.waiting import wait_until

from allranks_bus.home import Endpoint, read_endpoint
from allranks_bus.launch import ensure_collector
from allranks_bus.processes import is_alive, parent_of
from allranks_bus.spool_directory import find_spools

PROGRAMS = ROOT / "tests" / "scenarios" / "programs"
# Beside a program it takes the place of allranks: the same script without it.
WITHOUT = ROOT / "tests" / "support" / "without_allranks"
DEADLINE_S = 200.0
_DRAIN_S = 60.0
_DUMP_S = 20.0
_ANSWER_S = 60.0

# How a user starts it, after the interpreter.
SCRIPT: tuple[str, ...] = ("train.py",)
MODULE: tuple[str, ...] = ("-m", "train")


def torchrun(count: int, *options: str) -> tuple[str, ...]:
    """By `torchrun` with so many processes here; `options` in the place of `--standalone`."""
    # The console script is this very module.
    return ("-m", "torch.distributed.run", f"--nproc-per-node={count}", *(options or ("--standalone",)), "train.py")


@dataclass(frozen=True)
class Ended:
    """A program that has ended.

    Attributes:
        exit_code: as Popen gives it.
        seconds: from its start to its end.
        left: the command lines, by pid, of what was still there `processes.LEAVE_S` after its end, but for a
            collector.
    """

    exit_code: int
    seconds: float
    stdout: str
    stderr: str
    left: Mapping[int, str]

    def must_be_well(self) -> None:
        """It has ended with 0, nothing of it is left, and no traceback and no word of ours was printed."""
        assert self.exit_code == 0, f"exit code {self.exit_code}: {self.stderr[-4000:]}"
        assert not self.left, f"processes were left behind: {self.left}"
        for sign in ("Traceback", "allranks:"):
            assert sign not in self.stderr, self.stderr[-4000:]


class Program:
    """A program that has been started, in a session of its own."""

    def __init__(self, home: Path, directory: Path, process: subprocess.Popen[bytes], begun: float) -> None:
        self.home = home
        self.directory = directory
        self.process = process
        self._begun = begun

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return (self.directory / "stdout").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return (self.directory / "stderr").read_text(errors="replace")

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it: to every process of its group."""
        os.killpg(self.pid, signal.SIGINT)

    def await_line(self, text: str, *, timeout_s: float = 60.0) -> None:
        """Returns once `text` is in what it has printed."""

        def is_there() -> bool:
            assert text in self.stdout or self.process.poll() is None, f"it ended too early: {self.stderr[-4000:]}"
            return text in self.stdout

        wait_until(is_there, f"the program prints {text!r}", timeout_s=timeout_s)

    def wait(self, deadline_s: float = DEADLINE_S) -> Ended:
        """Its end; fails the test, with what every process of it was doing, where that takes too long."""
        # Not Popen.wait, which looks again after ever longer sleeps.
        fd = os.pidfd_open(self.pid)
        try:
            ended = select.select([fd], [], [], max(0.0, self._begun + deadline_s - time.monotonic()))[0]
            seconds = time.monotonic() - self._begun
        finally:
            os.close(fd)
        if not ended:
            raise AssertionError(f"it did not end in {deadline_s:g} s: {self._where_it_hangs()}")
        exit_code = self.process.wait()
        left = self._left()  # first: what it has printed may be seen a moment after its end
        return Ended(exit_code, seconds, self.stdout, self.stderr, left)

    def kill(self) -> None:
        """Whatever is left of it, but for a collector, which may be another program's too."""
        for pid in self._alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(_DUMP_S)

    def _alive(self) -> dict[int, str]:
        """All its processes, however detached, but for a collector."""
        pids = {*processes.with_home(self.home), *processes.of_session(self.pid)}
        lines = {pid: processes.command_line(pid) for pid in sorted(pids)}
        return {pid: line for pid, line in lines.items() if line and not is_collector(line)}

    def _left(self) -> dict[int, str]:
        deadline = time.monotonic() + processes.LEAVE_S
        while (left := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def _where_it_hangs(self) -> str:
        """Its processes, and the stacks of their threads."""
        alive = self._alive()
        tree = "\n".join(
            f"  {pid} (of {parent_of(pid)}, in {processes.waits_in(pid)}): {line[:200]}"
            for pid, line in alive.items()
        )
        before = len(self.stderr)
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGABRT)  # faulthandler is on: each prints its stacks
        deadline = time.monotonic() + _DUMP_S
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        told = self.stderr
        return f"\n{tree}\nstdout: {self.stdout[-1000:]}\nstderr: {told[:before][-4000:]}\nstacks: {told[before:]}"


@contextlib.contextmanager
def started(
    home: Path,
    program: str,
    *arguments: str,
    how: Sequence[str] = SCRIPT,
    env: Mapping[str, str] | None = None,
    is_without: bool = False,
    directory: Path | None = None,
) -> Generator[Program]:
    """A program that runs; of its processes none is left at the end, but for a collector.

    Args:
        home: its ALLRANKS_HOME; need not exist.
        program: the name of a file of `PROGRAMS`, or the text of one.
        how: `SCRIPT`, `MODULE`, or `torchrun(…)`.
        env: on top of a clean environment.
        is_without: without allranks: a module that does nothing takes its place.
        directory: where it runs; None means a new one beside the home.
    """
    if directory is None:
        number = len(list(home.parent.glob("program-*")))
        directory = home.parent / f"program-{number}"
    directory.mkdir(parents=True, exist_ok=True)
    text = program if "\n" in program else (PROGRAMS / program).read_text()
    (directory / "train.py").write_text(text)
    if is_without:
        shutil.copytree(WITHOUT, directory / "allranks", dirs_exist_ok=True)
    environment = {**clean_environment(home), "PYTHONFAULTHANDLER": "1", **(env or {})}
    # A user's script finds what is installed, and what lies beside it.
    environment.pop("PYTHONPATH", None)
    with open(directory / "stdout", "wb") as stdout, open(directory / "stderr", "wb") as stderr:
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *how, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=directory,
            start_new_session=True,
        )
    running = Program(home, directory, process, begun)
    try:
        yield running
    finally:
        running.kill()


def run(
    home: Path,
    program: str,
    *arguments: str,
    how: Sequence[str] = SCRIPT,
    env: Mapping[str, str] | None = None,
    is_without: bool = False,
    deadline_s: float = DEADLINE_S,
) -> Ended:
    """Runs a program to its end; arguments as for `started`."""
    with started(home, program, *arguments, how=how, env=env, is_without=is_without) as running:
        return running.wait(deadline_s)


@contextlib.contextmanager
def stored(home: Path, *, is_complete: Callable[[], bool] | None = None) -> Generator[Stored]:
    """What the embedded collector of `home` has stored, once it has brought in all that the programs left.

    Nothing is shipped by hand: a program that did not get a collector started fails here.

    Args:
        is_complete: more to wait for.
    """
    await_drained(home)
    if is_complete is not None:
        wait_until(is_complete, "all is stored", timeout_s=_DRAIN_S)
    end_collector(home)
    with stored_in(home / "allranks.duckdb") as found:
        yield found


def await_drained(home: Path) -> None:
    """Returns once nothing waits in any spool."""
    try:
        wait_until(lambda: not list(find_spools(home / "spool")), "all spools are drained", timeout_s=_DRAIN_S)
    except AssertionError as error:
        raise AssertionError(f"{error}; the collector says: {collector_log(home)[-2000:]}") from None


def start_collector(home: Path) -> Endpoint:
    """What the first program of a home does: its collector, which listens."""
    endpoint = ensure_collector(clean_environment(home))
    assert endpoint is not None
    return endpoint


def await_ended(home: Path) -> None:
    """Returns once all that was left in spools is stored, and no rank is taken to be there any more."""
    await_drained(home)

    def have_ended() -> bool:
        states = {run["state"] for run in ask(home, "/api/runs")["runs"]}
        return not {"running", "stalled", "unreachable"} & states

    wait_until(have_ended, "all runs have ended", timeout_s=_DRAIN_S)


def ask(home: Path, path: str) -> Any:
    """What the embedded collector of `home`, which runs, answers."""
    endpoint = read_endpoint(home)
    assert endpoint is not None
    with urllib.request.urlopen(endpoint.http + path, timeout=_ANSWER_S) as response:
        return json.load(response)


def end_collector(home: Path) -> None:
    """What `allranks down` does; one that is only starting is waited for."""

    def ends() -> bool:
        endpoint = read_endpoint(home)
        if endpoint is None:
            return not collectors(home)
        os.kill(endpoint.pid, signal.SIGTERM)
        wait_until(
            lambda: not is_alive(endpoint.pid, endpoint.pid_start), "the collector has ended", timeout_s=_DRAIN_S
        )
        return False

    wait_until(ends, "no collector runs", timeout_s=_DRAIN_S)


def collectors(home: Path) -> list[int]:
    """The pids of the collectors of this home, also of those that do not listen yet."""
    return [pid for pid in processes.with_home(home) if is_collector(processes.command_line(pid))]


def is_collector(line: str) -> bool:
    """Whether a process of this command line is a collector, or becomes one."""
    return "allranks_collector" in line


def collector_log(home: Path) -> str:
    """What the embedded collectors of this home have said."""
    with contextlib.suppress(OSError):
        return (home / "collector.log").read_text(errors="replace")
    return ""
