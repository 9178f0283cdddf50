"""Processes of a test: which ones there are, how much memory they take, and that none is left."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from allranks_bus import processes

# What a program has started must be gone so long after it: what it printed last is still delivered then.
LEAVE_S = 6.0


def with_home(home: Path) -> list[int]:
    """The pids of all processes, however detached, whose environment has this ALLRANKS_HOME."""
    wanted = f"ALLRANKS_HOME={home}".encode()
    return [pid for pid in _pids() if wanted in _environment(pid) and _is_alive(pid)]


def left_with_home(home: Path) -> list[int]:
    """Those of `with_home` that do not go by themselves in `LEAVE_S`."""
    deadline = time.monotonic() + LEAVE_S
    while (left := with_home(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def resident_bytes(pid: int) -> int:
    """The resident memory of a process; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def of_session(leader: int) -> list[int]:
    """The pids of all living processes of the session that `leader` began."""
    found: list[int] = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader and _is_alive(pid):
                found.append(pid)
    return found


def command_line(pid: int) -> str:
    """The arguments of a process, joined; empty where it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def waits_in(pid: int) -> str:
    """The system call or kernel function that a process's main thread waits in; empty where that is not told."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/wchan").read_text()
    return ""


def _pids() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _is_alive(pid: int) -> bool:
    start = processes.start_time(pid)
    return start is not None and processes.is_alive(pid, start)
