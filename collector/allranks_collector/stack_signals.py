"""Stacks of a process that cannot answer, by a signal: it must be there for that, and must never be hurt by it.

The signal is sent only where all of these hold at that moment: the process is the one that is meant (its start time),
it catches the signal, and it has the memfd open into which its handler writes (allranks_bus.stack_signal). What the
process itself has said decides nothing: it could name another one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from allranks_bus.processes import ProcessIdentity, is_alive
from allranks_bus.stack_signal import NUMBER, main_of
from allranks_collector.stack_dumps import parse_dump

# A dump of many threads is written in many small pieces: it is whole once nothing has come for a while.
_LOOK_S = 0.05
_QUIET_LOOKS = 3
_DEADLINE_S = 3.0
_MAX_DUMP_BYTES = 4 * 1024 * 1024


class NoStacks(Exception):
    """The process cannot be asked this way; the message says why."""


async def signalled_stacks(process: ProcessIdentity) -> list[dict[str, Any]]:
    """The threads of `process`, as its signal handler writes them down.

    Raises:
        NoStacks: it has no such handler, cannot be reached, or does not run its handler.
    """
    if not process.is_visible:
        raise NoStacks("no answer, and its process cannot be reached from the collector")
    try:
        with _open_process(process) as pidfd:
            state = _state(process.pid)
            if state in ("T", "t"):
                raise NoStacks("stopped by a signal" if state == "T" else "stopped by a debugger")
            fd, main = _memfd(process.pid)
            path = f"/proc/{process.pid}/fd/{fd}"
            with open(path, "r+b", buffering=0) as file:
                file.truncate(0)
                if not _catches(process.pid) or _memfd(process.pid) != (fd, main):
                    raise NoStacks("no answer, and another handler has its signal")
                signal.pidfd_send_signal(pidfd, NUMBER)
                dump = await _read(file)
                file.truncate(0)
    except (OSError, AttributeError, IndexError) as error:
        raise NoStacks(f"no answer, and no access to its process ({type(error).__name__})") from error
    threads = parse_dump(dump.decode("utf-8", "replace"), main)
    if not threads:
        raise NoStacks("no answer, and no stacks: it waits in the kernel" if state == "D" else "no answer")
    return threads


@contextmanager
def _open_process(process: ProcessIdentity) -> Generator[int]:
    fd = os.pidfd_open(process.pid)
    try:
        # Opened first and compared then: now the descriptor cannot come to mean a later process of this pid.
        if not is_alive(process.pid, process.start):
            raise NoStacks("its process is gone")
        yield fd
    finally:
        os.close(fd)


async def _read(file: Any) -> bytes:
    """What the handler writes; as much as has come by the deadline."""
    size, quiet = 0, 0
    with anyio.move_on_after(_DEADLINE_S):
        while quiet < _QUIET_LOOKS:
            await anyio.sleep(_LOOK_S)
            now = os.fstat(file.fileno()).st_size
            quiet = quiet + 1 if now == size and now > 0 else 0
            size = now
    file.seek(0)
    return bytes(file.read(_MAX_DUMP_BYTES))


def _memfd(pid: int) -> tuple[int, int]:
    """The descriptor of the process's memfd, and the main thread that its name tells."""
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            try:
                main = main_of(str(Path(entry.path).readlink()), pid)
            except OSError:  # closed between the two
                continue
            if main is not None:
                return int(entry.name), main
    raise NoStacks("no answer, and no handler for the signal that asks")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]


def _catches(pid: int) -> bool:
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (NUMBER - 1) & 1)
    return False
