"""Starting the collector: once, however many ask, and without a trace in the process that asked."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.processes import with_home
from tests.support.waiting import wait_until

from allranks_bus import launch, processes
from allranks_bus.home import read_endpoint
from allranks_bus.launch import START_LOCK, CollectorDidNotStart, ensure_collector

_ENSURE = Path(__file__).parent / "programs" / "ensure.py"
_START_S = 90


@dataclass(frozen=True)
class Home:
    """A home of the embedded collector, with the environment that names it."""

    path: Path
    env: dict[str, str]

    def ask(self, count: int = 1, *, timeout_s: float = _START_S, cwd: str = ".") -> list[dict[str, Any]]:
        """What `ensure_collector` gives to as many processes that ask at once."""
        command = [sys.executable, str(_ENSURE), str(timeout_s), cwd]
        with contextlib.ExitStack() as stack:
            askers = [
                stack.enter_context(
                    subprocess.Popen(command, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                )
                for _ in range(count)
            ]
            for asker in askers:
                assert asker.stdout is not None
                assert asker.stdout.readline() == b"ready\n"
            for asker in askers:
                assert asker.stdin is not None
                asker.stdin.write(b"x")
                asker.stdin.flush()
            told = [asker.communicate() for asker in askers]
        return [json.loads(output) for output, _ in told]


@pytest.fixture
def home(tmp_path: Path) -> Generator[Home]:
    """An empty home; whatever was started in it has ended afterwards."""
    path = tmp_path / "home"
    env = {name: value for name, value in os.environ.items() if not name.startswith("ALLRANKS_")}
    yield Home(path, {**env, "ALLRANKS_HOME": str(path), "ALLRANKS_IDLE_EXIT": "5"})
    endpoint = read_endpoint(path)
    if endpoint is not None:
        os.kill(endpoint.pid, signal.SIGTERM)
    try:
        wait_until(lambda: not with_home(path), "the collector has ended")
    finally:
        for pid in with_home(path):
            os.kill(pid, signal.SIGKILL)


def test_eight_ranks_start_one_collector(home: Home) -> None:
    """All get the same one, which lives; none of them has a child that it did not make."""
    told = home.ask(8)
    endpoints = [each["endpoint"] for each in told]
    assert endpoints == [endpoints[0]] * 8
    assert processes.is_alive(endpoints[0]["pid"], endpoints[0]["pid_start"])
    assert with_home(home.path) == [endpoints[0]["pid"]]
    assert [each["child"] for each in told] == [None] * 8
    again = ensure_collector(home.env)
    assert again is not None
    assert again.pid == endpoints[0]["pid"]
    # It is nobody's child here, and nobody's zombie when it is gone.
    assert processes.parent_of(again.pid) != os.getpid()


def test_files_of_the_user_do_not_get_in_the_way(home: Home, tmp_path: Path) -> None:
    """Neither those where the program runs, named as modules are, nor a relative PYTHONPATH."""
    workplace = tmp_path / "workplace"
    (workplace / "lib" / "helper").mkdir(parents=True)
    for name in ("typing.py", "queue.py", "json.py", "allranks_bus.py", "lib/helper/__init__.py"):
        (workplace / name).write_text("raise SystemExit('the wrong module')\n" if "/" not in name else "")
    paths = os.pathsep.join(("lib", "", home.env.get("PYTHONPATH", "")))
    told = Home(home.path, {**home.env, "PYTHONPATH": paths}).ask(cwd=str(workplace))
    assert told[0].get("endpoint"), told
    environment = Path(f"/proc/{told[0]['endpoint']['pid']}/environ").read_bytes().split(b"\0")
    path = next(entry for entry in environment if entry.startswith(b"PYTHONPATH="))
    entries = path.removeprefix(b"PYTHONPATH=").decode().split(os.pathsep)
    assert entries[0] == str(workplace / "lib")
    assert all(Path(entry).is_absolute() for entry in entries)


def test_a_collector_that_cannot_start_is_told_with_its_last_line(home: Home) -> None:
    """And where the rest of it is; nothing is left of it."""
    bad = Home(home.path, {**home.env, "ALLRANKS_HTTP_PORT": "no port at all"})
    told = bad.ask()[0]
    assert told["error"] == "CollectorDidNotStart"
    assert "no port at all" in told["text"]
    assert str(home.path / "collector.log") in told["text"]
    assert "\n" not in told["text"]
    assert told["child"] is None
    assert with_home(home.path) == []


# -- without a collector --------------------------------------------------------------------------------------------


def _quick(home: Home, **more: Any) -> None:
    ensure_collector(home.env, timeout_s=60.0, **more)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), subprocess.TimeoutExpired("python", 3)])
def test_a_python_that_cannot_be_run_is_told(home: Home, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """An embedded interpreter has no executable; a machine may be out of processes."""

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "Popen", fails)
    with pytest.raises(CollectorDidNotStart, match="could not be started"):
        _quick(home)


def test_a_log_that_cannot_be_written_is_told(home: Home) -> None:
    """The disk may be full, the file somebody else's."""
    (home.path / "collector.log").mkdir(parents=True)
    with pytest.raises(CollectorDidNotStart, match="could not be started"):
        _quick(home)


def test_a_home_that_cannot_be_made_is_told(home: Home, tmp_path: Path) -> None:
    """With what to do."""
    (tmp_path / "file").write_text("")
    env = {**home.env, "ALLRANKS_HOME": str(tmp_path / "file" / "home")}
    with pytest.raises(CollectorDidNotStart, match="set ALLRANKS_HOME"):
        ensure_collector(env)


def test_a_start_that_takes_too_long_leaves_no_child(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper that detaches the collector is ended, and waited for."""
    began = time.monotonic()
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def sleeps(_: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(cast("subprocess.Popen[bytes]", popen(["/bin/sleep", "600"], **options)))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", sleeps)
    with pytest.raises(CollectorDidNotStart, match="timed out"):
        ensure_collector(home.env, timeout_s=0.3)
    assert time.monotonic() - began < 5
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_waiting_for_somebody_elses_start_can_be_stopped(home: Home) -> None:
    """A training that ends does not wait for a collector."""
    with _start_lock(home):
        looks = iter([False, False, True])
        assert ensure_collector(home.env, should_stop=lambda is_coming: is_coming and next(looks)) is None


def test_whoever_does_not_wait_has_seen_to_it_that_one_comes(home: Home) -> None:
    """A program that ends at once leaves its events to a collector, which it must start first."""
    told: list[bool] = []

    def leaves(is_coming: bool) -> bool:
        told.append(is_coming)
        return True

    assert ensure_collector(home.env, should_stop=leaves) is None
    assert told == [True]
    wait_until(lambda: read_endpoint(home.path), "it has come", timeout_s=_START_S)


def test_a_start_that_never_ends_is_not_waited_for_for_ever(home: Home) -> None:
    """Whoever holds the lock may hang."""
    with _start_lock(home), pytest.raises(CollectorDidNotStart, match="printed nothing"):
        ensure_collector(home.env, timeout_s=0.1)


@contextlib.contextmanager
def _start_lock(home: Home) -> Generator[int]:
    home.path.mkdir(exist_ok=True)
    lock = os.open(home.path / START_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def test_a_process_forked_meanwhile_does_not_keep_the_start_lock(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DataLoader worker, forked while a thread starts the collector, has the lock's open file too."""
    home.path.mkdir()
    with _start_lock(home) as lock:
        inherited = os.dup(lock)  # the same open file, as in a forked child
        mine = os.dup(lock)
        monkeypatch.setenv(launch.START_LOCK_FD_VARIABLE, str(mine))
        launch.release_start_lock()
        with open(home.path / START_LOCK) as another:
            fcntl.flock(another, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(inherited)
    assert launch.START_LOCK_FD_VARIABLE not in os.environ


def test_releasing_twice_or_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector may be started by hand, or with a variable that means nothing."""
    launch.release_start_lock()
    for value in ("", "x", "-1", "123456"):
        monkeypatch.setenv(launch.START_LOCK_FD_VARIABLE, value)
        launch.release_start_lock()
