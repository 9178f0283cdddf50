"""Starting this user's collector by itself: by exec, detached, and only once however many ask for it.

The starter holds a lock that its child inherits and gives up once it listens (or dies), so of eight ranks that ask at
once one starts it and seven wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from allranks_bus.errors import AllranksError
from allranks_bus.helpers import start_helper
from allranks_bus.home import Endpoint, home_dir, read_endpoint

LOG_FILE = "collector.log"
START_LOCK = "start.lock"
# Tells the collector which inherited descriptor holds the start lock.
START_LOCK_FD_VARIABLE = "ALLRANKS_START_LOCK_FD"
_POLL_S = 0.02


class CollectorDidNotStart(AllranksError):
    """The embedded collector could not be started; the message names its log."""


def ensure_collector(
    env: Mapping[str, str] = os.environ,
    *,
    timeout_s: float = 20.0,
    keep: bool = False,
    should_stop: Callable[[bool], bool] = lambda _: False,
) -> Endpoint | None:
    """The endpoint of this user's collector, which is started if none runs.

    Waits for it, so a training's main thread never calls this.

    Args:
        env: where ALLRANKS_HOME and the collector's settings are taken from.
        timeout_s: how long a starting collector is waited for.
        keep: start one that does not end when it is idle.
        should_stop: asked while waiting, and told whether one is on its way, which is so from the first question on
            unless it cannot be started; None is returned once it says so.

    Raises:
        CollectorDidNotStart: it ended at once, or did not listen in time.
    """
    home = home_dir(env)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CollectorDidNotStart(f"cannot make {home}: {error.strerror}; set ALLRANKS_HOME") from error
    deadline = time.monotonic() + timeout_s
    starts = 0
    while True:
        # Looked at after the lock: whoever held it a moment ago has written the endpoint before letting go.
        idle = _nobody_starts(home)
        endpoint = read_endpoint(home)
        if endpoint is not None:
            return endpoint
        if time.monotonic() >= deadline or (idle and starts == 2):
            raise CollectorDidNotStart(f"the collector did not start: {_last_line(home / LOG_FILE)}")
        try:
            if idle and _start_if_first(home, env, keep, deadline):
                starts += 1
                idle = False
        except (OSError, subprocess.SubprocessError) as error:
            raise CollectorDidNotStart(f"the collector could not be started: {error}") from error
        if should_stop(not idle):
            return None
        time.sleep(_POLL_S)


def release_start_lock() -> None:
    """Called by a collector that listens now: whoever waits for the start may look again."""
    fd = os.environ.pop(START_LOCK_FD_VARIABLE, None)
    if fd is not None:
        with contextlib.suppress(OSError, ValueError):
            _let_go(int(fd))


def _start_if_first(home: Path, env: Mapping[str, str], keep: bool, deadline: float) -> bool:
    """Starts a collector, unless somebody else is at it; True where this process started one."""
    lock = os.open(home / START_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # flock and not a record lock: it belongs to the open file, so the child goes on holding it.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if read_endpoint(home) is not None:
            fcntl.flock(lock, fcntl.LOCK_UN)
            return False
        # From here on the lock is the child's.
        _spawn(home, env, lock, keep, deadline)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


def _let_go(lock: int) -> None:
    """Unlocks before it closes: a process that was forked meanwhile has the open file too, and would hold it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)


def _nobody_starts(home: Path) -> bool:
    lock = os.open(home / START_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        _let_go(lock)


def _spawn(home: Path, env: Mapping[str, str], lock: int, keep: bool, deadline: float) -> None:
    start_helper(
        "allranks_collector",
        ["--embedded", *(["--keep"] * keep)],
        cwd=home,
        env={**env, START_LOCK_FD_VARIABLE: str(lock), "ALLRANKS_HOME": str(home)},
        log=home / LOG_FILE,
        pass_fds=(lock,),
        timeout_s=deadline - time.monotonic(),
    )


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"{lines[-1] if lines else 'it printed nothing'} (all of it is in {path})"
