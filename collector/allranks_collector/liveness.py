"""Waiting for a process to end, whoever's child it is, and learning how it ended.

A pidfd becomes readable when its process ends (pidfd_open(2)). Until its parent has asked for its wait status, /proc
tells it; afterwards, since Linux 6.15, the ioctl PIDFD_GET_INFO does, also of a process that is not our child. Where
there is no pidfd, its entry in /proc is looked at.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from dataclasses import dataclass

import anyio

from allranks_bus.processes import ProcessIdentity, is_alive, zombie_status

# struct pidfd_info: mask, cgroupid, eleven ids, exit_code; _IOWR(0xFF, 11, 64 bytes) (linux/pidfd.h).
_PIDFD_INFO = struct.Struct("=QQ11Ii")
_PIDFD_GET_INFO = 0xC000_0000 | _PIDFD_INFO.size << 16 | 0xFF << 8 | 11
_PIDFD_INFO_EXIT = 1 << 3
_LOOK_S = 0.25
# A readable pidfd tells of the end, but a wake-up may be lost with its event loop's poller; so look now and then.
_LOOK_AGAIN_S = 5.0


@dataclass(frozen=True)
class Exit:
    """How a process ended; both None where nobody could tell.

    Attributes:
        code: its exit code.
        signal: the name of the signal that ended it, such as SIGKILL.
    """

    code: int | None = None
    signal: str | None = None

    @property
    def is_bad(self) -> bool:
        """True where it is known to have ended otherwise than with exit code 0."""
        return self.signal is not None or self.code not in (0, None)


async def wait_for_exit(process: ProcessIdentity) -> Exit:
    """Returns when `process`, which must be visible from here, has ended."""
    try:
        fd = os.pidfd_open(process.pid)
    except (OSError, AttributeError):
        while is_alive(process.pid, process.start):
            await anyio.sleep(_LOOK_S)
        return _exit_of(zombie_status(process.pid, process.start))
    try:
        # Opened first and compared then: now the descriptor cannot come to mean a later process of this pid.
        while is_alive(process.pid, process.start):
            with anyio.move_on_after(_LOOK_AGAIN_S):
                await anyio.wait_readable(fd)
        # In this order: the parent may ask at any moment, and only from then on the descriptor knows.
        status = zombie_status(process.pid, process.start)
        return _exit_of(_reaped_status(fd) if status is None else status)
    finally:
        os.close(fd)


def _reaped_status(fd: int) -> int | None:
    """The wait status of a process that has ended and whose parent knows; None on an older kernel."""
    request = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *(0,) * 13))
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, request)
    except OSError:
        return None
    mask, *_, status = _PIDFD_INFO.unpack(request)
    return int(status) if mask & _PIDFD_INFO_EXIT else None


def _exit_of(status: int | None) -> Exit:
    if status is None:
        return Exit()
    if os.WIFSIGNALED(status):
        return Exit(signal=signal_name(os.WTERMSIG(status)))
    return Exit(code=os.WEXITSTATUS(status))


def signal_name(number: int) -> str:
    """The name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
