"""Launches of one host that look alike: which of them a process belongs to.

A script that starts its ranks by hand, twice, with the same address and port; a program that calls
torch.multiprocessing.spawn twice: nothing in the environment tells the second launch from the first. What does is
that a place is taken: a rank that finds its place taken in the newest launch begins the next one. The places are kept
in a small file beside the spools, which is local; nobody waits for anybody.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from allranks_bus import processes

# The ranks of one launch start together: one whose launch has died may have started so much later than the last.
TOGETHER_S = 5.0
_KEEP_S = 7 * 24 * 3600.0
_LOCK_WAIT_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

# Of one launch, by rank: pid of the process that took the place, and its start in clock ticks since boot.
Launch: TypeAlias = dict[int, tuple[int, int]]


def choose(launches: list[Launch], rank: int, pid: int, start: int, is_alive: Callable[[int, int], bool]) -> int:
    """The number of the launch, from 0, that the process at `rank` belongs to; `len(launches)` for the next one.

    Args:
        launches: oldest first.
        pid, start: the process that asks; it gets the same answer when it asks again.
        is_alive: whether the process of a pid and start is there.
    """
    for number, launch in enumerate(launches):
        if launch.get(rank) == (pid, start):
            return number
    if not launches:
        return 0
    newest = launches[-1]
    if rank in newest:
        return len(launches)
    started_together = start - max(member[1] for member in newest.values()) <= TOGETHER_S * _TICKS_PER_S
    if started_together or any(is_alive(*member) for member in newest.values()):
        return len(launches) - 1
    return len(launches)


def join(roots: Iterable[Path], key: str, rank: int) -> int:
    """Takes the place `rank` in the launch that this process belongs to, and gives that launch's number, from 0.

    Never raises: where no file can be kept, or its lock is held for long, it is 0.

    Args:
        roots: the directories where spools may lie, best first.
        key: what the launches have in common.
    """
    me = processes.current()
    for root in roots:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            return _join(root / "launches", key, rank, me.pid, me.start)
    return 0


def _join(directory: Path, key: str, rank: int, pid: int, start: int) -> int:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory / f"{key}.json", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd)
        text = os.read(fd, 1 << 24)
        launches = [_launch(launch) for launch in json.loads(text)] if text else []
        number = choose(launches, rank, pid, start, processes.is_alive)
        if number == len(launches):
            launches.append({})
            _forget_old(directory)
        if rank not in launches[number]:
            launches[number][rank] = (pid, start)
            content = json.dumps(launches).encode()
            os.pwrite(fd, content, 0)
            os.ftruncate(fd, len(content))
        return number
    finally:
        os.close(fd)


def _lock(fd: int) -> None:
    """Takes the lock; held for a few file operations only, by whoever has it."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.001)


def _launch(told: Mapping[str, Any]) -> Launch:
    return {int(rank): (int(pid), int(start)) for rank, (pid, start) in told.items()}


def _forget_old(directory: Path) -> None:
    oldest = time.time() - _KEEP_S
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
