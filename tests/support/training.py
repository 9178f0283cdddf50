"""Real training processes for tests: ranks of a program in tests/faults/programs."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.collector import clean_environment
from tests.support.progress import Progress
from tests.support.waiting import wait_until

RUN = "faults"
_END_S = 60.0


@dataclass
class Rank:
    """One process of a training."""

    rank: int
    process: subprocess.Popen[bytes]
    progress: Progress
    stderr_path: Path

    @property
    def returned(self) -> int:
        """How many calls of log() have returned, at the least."""
        return self.progress.returned

    @property
    def stderr(self) -> str:
        return self.stderr_path.read_text(errors="replace")

    def kill(self) -> None:
        """SIGKILL, and reaped."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_END_S)

    def wait(self, timeout_s: float = _END_S) -> int:
        """Its exit code, once it has ended by itself."""
        return self.process.wait(timeout_s)

    def reach(self, events: int, *, timeout_s: float = _END_S) -> None:
        """Returns once so many calls of log() have returned."""
        wait_until(
            lambda: self.returned >= events or self._must_live(),
            f"rank {self.rank} has logged {events:,} events",
            timeout_s=timeout_s,
        )

    def stop(self, timeout_s: float = _END_S) -> float:
        """Asks it to end, and returns how many seconds it took for that; its exit code must be 0."""
        asked_at = time.monotonic()
        self.progress.ask_to_stop()
        assert self.wait(timeout_s) == 0, self.stderr
        return time.monotonic() - asked_at

    def _must_live(self) -> bool:
        assert self.process.poll() is None, f"rank {self.rank} ended too early: {self.stderr[-2000:]}"
        return False


@dataclass
class Job:
    """How the ranks of a training are started.

    Attributes:
        home: ALLRANKS_HOME of the ranks.
        url: ALLRANKS_URL; None means the embedded collector.
        program: a module of tests.faults.programs.
        wrapper: a command before the interpreter, such as unshare.
    """

    home: Path
    url: str | None = None
    run: str = RUN
    program: str = "rank"
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    wrapper: Sequence[str] = ()

    @contextlib.contextmanager
    def ranks(self, count: int, *arguments: str) -> Generator[list[Rank]]:
        """Starts the ranks, each with the path of its progress and `arguments`; none is left at the end."""
        started: list[Rank] = []
        try:
            for rank in range(count):
                started.append(self.start(rank, count, *arguments))
            yield started
        finally:
            for rank_ in started:
                if rank_.process.poll() is None:
                    rank_.process.send_signal(signal.SIGCONT)
                    rank_.kill()

    def start(self, rank: int, world_size: int, *arguments: str) -> Rank:
        """Starts one rank; the caller ends it."""
        directory = self.home.parent / f"{self.run}-{rank}"
        directory.mkdir(parents=True, exist_ok=True)
        nth = len(list(directory.iterdir()))
        progress = Progress.new(directory / f"{nth}.progress")
        stderr_path = directory / f"{nth}.stderr"
        env = clean_environment(
            self.home,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(world_size),
            ALLRANKS_RUN_ID=self.run,
        )
        env |= {"ALLRANKS_URL": self.url} if self.url else {}
        env |= self.env
        command = [*self.wrapper, sys.executable, "-m", f"tests.faults.programs.{self.program}"]
        with open(stderr_path, "wb") as stderr:
            process = subprocess.Popen(
                [*command, str(progress.path), *arguments],
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                env=env,
                cwd=directory,
            )
        return Rank(rank, process, progress, stderr_path)
