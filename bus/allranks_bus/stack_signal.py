"""The signal at which a rank writes down where its threads stand, also while C code holds the interpreter.

A rank that will do so has a memfd of a name that says so; it is known by that, and by nothing that it says: whoever
sends the signal looks for it in the process itself.
"""

from __future__ import annotations

import signal

# Nothing that a process can become in the last moment is hurt by it: its default action is none. Trainings, their
# launchers and libraries leave it alone; who does not has a handler for it, and then it is not ours.
NUMBER = signal.SIGURG
_PREFIX = "allranks-stacks"


def file_name(pid: int, main: int) -> str:
    """The name of the memfd of the process `pid`, whose main thread is the one that `threading` calls `main`."""
    return f"{_PREFIX}-{pid}-{main:x}"


def main_of(link: str, pid: int) -> int | None:
    """The main thread told by where a descriptor of `pid` leads; None where that is not the memfd of this process."""
    name = link.removeprefix("/memfd:").removesuffix(" (deleted)")
    parts = name.rsplit("-", 2)
    if not link.startswith("/memfd:") or len(parts) != 3 or parts[:2] != [_PREFIX, str(pid)]:
        return None
    try:
        return int(parts[2], 16)
    except ValueError:
        return None
