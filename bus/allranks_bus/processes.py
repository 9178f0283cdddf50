"""Processes: which one a pid means, and whether it is still there.

A pid alone is reused; with its start time, its boot and its pid namespace it names one process for ever. Linux's
`/proc` tells all four; where there is no `/proc`, nothing can be said and heartbeats must do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one boot of one machine.

    Attributes:
        pid: as processes of the namespace `pid_ns` see it.
        start: clock ticks from boot to its start; 0 where unknown.
        boot_id: of the kernel; empty where unknown.
        pid_ns: inode of its pid namespace; 0 where unknown.
    """

    pid: int
    start: int
    boot_id: str
    pid_ns: int

    @property
    def is_visible(self) -> bool:
        """True where this process can tell by the pid alone whether that one lives."""
        return bool(self.start and self.boot_id and self.boot_id == boot_id() and self.pid_ns == pid_namespace())

    def is_of_boot_before(self, host: str) -> bool:
        """True where it ran on `host`, that is this host by its name, and this one has been started again since."""
        return bool(self.boot_id) and host == os.uname().nodename and self.boot_id != boot_id()


def current() -> ProcessIdentity:
    """This process."""
    pid = os.getpid()
    return ProcessIdentity(pid, start_time(pid) or 0, boot_id(), pid_namespace())


def is_alive(pid: int, start: int) -> bool:
    """True while the process `pid` that started at `start` runs; a zombie is dead.

    Only right for a pid of this namespace (`ProcessIdentity.is_visible`).
    """
    fields = _stat_fields(pid)
    return fields is not None and fields[0] not in ("Z", "X", "x") and int(fields[19]) == start


def zombie_status(pid: int, start: int) -> int | None:
    """The wait status of the process `pid` that started at `start`, has ended, and waits for its parent to ask.

    None where it is anything else, or where this user may not know: then /proc says 0 (proc(5), `exit_code`).
    """
    fields = _stat_fields(pid)
    if fields is None or fields[0] != "Z" or int(fields[19]) != start or len(fields) < 50:
        return None
    status = int(fields[49])
    return status if status or _is_ours(pid) else None


def start_time(pid: int) -> int | None:
    """The start time of `pid` in clock ticks since boot, or None where there is no such process."""
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[19])


def standing(pid: int, start: int) -> tuple[str, int] | None:
    """How the process `pid` that started at `start` stands: its state's letter (proc(5)) and its tracer's pid, or 0.

    None where it has ended. Both are those of its main thread.
    """
    fields = _stat_fields(pid)
    if fields is None or int(fields[19]) != start:
        return None
    return fields[0], _tracer_of(pid)


def _tracer_of(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("TracerPid:")), "TracerPid: 0")
    return int(line.split()[1])


def parent_of(pid: int) -> int | None:
    """The pid of `pid`'s parent, or None where there is no such process."""
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[1])


@cache
def boot_id() -> str:
    """The kernel's id of this boot; empty where it cannot be read."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def pid_namespace() -> int:
    """The inode of this process's pid namespace; 0 where it cannot be read."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _is_ours(pid: int) -> bool:
    try:
        return os.geteuid() in (0, Path(f"/proc/{pid}").stat().st_uid)
    except OSError:
        return False


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the third (state) on: a name may hold spaces and parentheses (proc(5))."""
    # Without pathlib and without a file object: a publisher looks at its collector for as long as it lives.
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096).decode("utf-8", "replace")
    except OSError:  # it ended between the two
        return None
    finally:
        os.close(fd)
    return text.rpartition(")")[2].split()
