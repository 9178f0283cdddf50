"""Workers and collectors for the benchmarks: started by exec, waited for with deadlines, never left running."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import psutil

from allranks_bus.home import Endpoint, read_endpoint

ROOT = Path(__file__).resolve().parents[1]
_START_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 20.0
# What would make a process of ours someone else's rank, or write somewhere else.
_FOREIGN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "SLURM_JOB_ID")
# Else each process would compile our modules anew, which are compiled once where they are installed.
_UNLIKE_INSTALLED = ("PYTHONDONTWRITEBYTECODE",)


class WorkerFailed(Exception):
    """A worker ended without its answer, or did not give it in time."""


@contextlib.contextmanager
def temporary_home() -> Generator[Path]:
    """A home for one measurement, on local disk; removed with all that is in it."""
    home = Path(tempfile.mkdtemp(prefix="allranks-bench-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def environment(home: Path, **more: str) -> dict[str, str]:
    """The environment of a process that uses `home` and knows of no other."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ALLRANKS_", "WANDB_", "SWANLAB_", "TRACKIO_"))
        and name not in (*_FOREIGN, *_UNLIKE_INSTALLED)
    }
    # A safety net: should a worker ever start a collector by itself, that one does not stay.
    return {**kept, "ALLRANKS_HOME": str(home), "ALLRANKS_IDLE_EXIT": "5", **more}


class Worker:
    """`python -m benchmarks.workers.NAME`, told its arguments as JSON, and answering in lines of JSON.

    Args:
        name: of the module.
        arguments: given as the only argument of the command.
        home: where it may write; also its ALLRANKS_HOME.
        python: the interpreter; None means this one.
        wrapper: a command before the interpreter, such as one that runs it on another host.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        home: Path,
        python: str | None = None,
        wrapper: Sequence[str] = (),
        **env: str,
    ) -> None:
        self._name = name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)
        self._process = subprocess.Popen(
            [*wrapper, python or sys.executable, "-m", f"benchmarks.workers.{name}", json.dumps(dict(arguments))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=environment(home, **env),
            start_new_session=True,
            bufsize=0,
        )
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, line: str = "go") -> None:
        """Sends a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def kill(self) -> None:
        """Ends it: it will not do so by itself."""
        self._process.kill()

    def hear(self, timeout_s: float) -> dict[str, Any]:
        """Its next answer: lines that are no JSON object are others' chatter, and passed over.

        Raises:
            WorkerFailed: it ended, or the time was over; the message holds the end of its standard error.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                if line.startswith(b"{"):
                    answer: dict[str, Any] = json.loads(line)
                    return answer
                continue
            self._unread += self._read(deadline - time.monotonic())

    def _read(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, timeout_s))
        chunk = os.read(self._process.stdout.fileno(), 65_536) if ready else b""
        if not chunk:
            why = "ended" if ready else "did not answer in time"
            raise WorkerFailed(f"the worker {self._name} {why}: {self._last_words()}")
        return chunk

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-2000:]

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            # It has answered; let it end by itself, as the program that it stands for would.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_TIMEOUT_S)
        # Its session is its own: peers start helpers in it that must not stay either.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_END_TIMEOUT_S)
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def run_worker(
    name: str,
    arguments: Mapping[str, Any],
    *,
    home: Path,
    timeout_s: float,
    python: str | None = None,
    **env: str,
) -> dict[str, Any]:
    """The one answer of a worker."""
    with Worker(name, arguments, home=home, python=python, **env) as worker:
        return worker.hear(timeout_s)


class RunningCollector:
    """A real collector in a process of its own; `process` is for psutil's figures."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.process = psutil.Process(endpoint.pid)

    @property
    def cpu_s(self) -> float:
        """The CPU time that it has taken so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    @property
    def resident_mb(self) -> float:
        return float(self.process.memory_info().rss) / 1e6


@contextlib.contextmanager
def running_collector(home: Path, **env: str) -> Generator[RunningCollector]:
    """A collector for `home`, as `init` would start one, for as long as the context lasts.

    Raises:
        WorkerFailed: it did not listen in time; the message holds the end of its log.
    """
    http, data = free_port(), free_port_pair()
    log_path = home / "collector.log"
    with open(log_path, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "allranks_collector", "--embedded", "--keep"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home,
            env=environment(home, ALLRANKS_HTTP_PORT=str(http), ALLRANKS_DATA_PORT=str(data), **env),
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while (endpoint := read_endpoint(home)) is None:
            if process.poll() is not None or time.monotonic() >= deadline:
                raise WorkerFailed(f"the collector did not start: {log_path.read_text()[-2000:]}")
            time.sleep(0.02)
        yield RunningCollector(endpoint)
    finally:
        process.terminate()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_END_TIMEOUT_S)


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def free_port_pair() -> int:
    """The lower of two neighbouring TCP ports of loopback that are free now."""
    for _ in range(100):
        port = free_port()
        with socket.socket() as next_one:
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    raise WorkerFailed("no two neighbouring ports are free")
