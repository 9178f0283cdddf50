"""How often the kernel has killed for want of memory in the control group of a process.

Version 2 counts in `memory.events`, version 1 in `memory.oom_control`; a container sees its own group at the root of
the mount. In version 2 a group is counted with all below it, and where it has no count the nearest one above tells.
Imports neither pathlib nor re: a training's publisher uses it.
"""

from __future__ import annotations

import os

MOUNT = "/sys/fs/cgroup"
_MAX_BYTES = 4096
_MAX_DEPTH = 32


def find_oom_file(pid: int, *, mount: str = MOUNT, proc: str = "/proc") -> str | None:
    """The file that counts the kills in the group of `pid`; None where there is none, or it is not to be seen."""
    for line in _read(f"{proc}/{pid}/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0":
            parts = [part for part in path.split("/") if part][:_MAX_DEPTH]
            above = ("/".join(("", *parts[:depth])) for depth in range(len(parts), 0, -1))
            places = (*(f"{mount}{group}/memory.events" for group in above), f"{mount}/memory.events")
        elif "memory" in controllers.split(","):
            places = (f"{mount}/memory{path}/memory.oom_control", f"{mount}/memory/memory.oom_control")
        else:
            continue
        for place in places:
            if read_oom_kills(place) is not None:
                return place
    return None


def read_oom_kills(path: str) -> int | None:
    """The count in such a file; None where it cannot be read."""
    for line in _read(path).splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill" and count.isdecimal():
            return int(count)
    return None


class OomCount:
    """The count in the group of one process, whose file is looked up once."""

    def __init__(self, pid: int) -> None:
        self._path = find_oom_file(pid)

    def read(self) -> int | None:
        """How often the kernel has killed there; None where that cannot be known."""
        return None if self._path is None else read_oom_kills(self._path)


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, _MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
