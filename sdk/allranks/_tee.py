"""Starting a tee, and speaking with it. What it is and does: `allranks_bus.tee`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from allranks_bus.polling import wait_readable
from allranks_bus.tee.spec import CONTROL, ORIGINALS, SOURCES, STATUS, STREAMS, Spec

_STARTER_S = 0.25
# Above what a shell, and the tee, use by number.
LOWEST_FD = 16
# What the interpreter is started with: it sees nothing of the user's but what its argument names.
_BOOT = "import sys; sys.path[:0] = sys.argv[1].split(':'); from allranks_bus.tee.program import main; main()"
# What the terminal and launchers end a training with: a tee stays for the last words, and ends at their end.
_IGNORED = "HUP INT QUIT TERM TSTP TTIN TTOU USR1 USR2"
# The shell ends at once and its child lives on, so that the training has no child that it did not make. Signals are
# ignored from the first moment on, and all that is started from here inherits that.
_SHELL = ("/bin/sh", "-c", f'trap "" {_IGNORED}; "$@" &', "sh")
# Where there is no shell (a container with Python and little else).
_DETACH = f"""
import os, signal, sys
for name in "{_IGNORED}".split():
    signal.signal(getattr(signal, "SIG" + name), signal.SIG_IGN)
os.fork() and os._exit(0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class TeeProcess:
    """A tee, started in about a millisecond.

    Args:
        sources, originals: descriptors by stream; they stay this process's.
        env: its environment.

    Raises:
        OSError, ValueError: it cannot be started.
    """

    def __init__(
        self, spec: Spec, sources: Mapping[int, int], originals: Mapping[int, int], env: Mapping[str, str]
    ) -> None:
        self._starter = 0
        self._status = self._control = -1
        told, orders = -1, -1
        try:
            self._status, told = pipe()
            orders, self._control = pipe()
            os.write(self._control, spec.pack())
            descriptors = {
                **{SOURCES[stream]: fd for stream, fd in sources.items()},
                **{ORIGINALS[stream]: fd for stream, fd in originals.items()},
                STATUS: told,
                CONTROL: orders,
            }
            self._starter = _spawn([sys.executable, "-I", "-S", "-c", _BOOT, _bus_path()], descriptors, env)
            self._reap_soon()
        except BaseException:
            self.close()
            raise
        finally:
            for fd in (told, orders):
                close(fd)

    def reap(self) -> None:
        """Waits for what has started it, where the making of this has not waited long enough."""
        starter, self._starter = self._starter, 0
        if starter:
            with contextlib.suppress(ChildProcessError):  # the program has waited for all its children
                os.waitpid(starter, 0)

    def _reap_soon(self) -> None:
        """Waits a little for what has started it: the program has no child that it did not make."""
        try:
            ended = os.pidfd_open(self._starter)
        except (OSError, AttributeError):  # an older kernel
            return
        try:
            if wait_readable((ended,), _STARTER_S):
                self.reap()
        finally:
            os.close(ended)

    def listen(self) -> bytes:
        """What it says next, one byte a word; waits for it. Empty once it has ended, or has been left to itself."""
        try:
            return os.read(self._status, 64)
        except OSError:  # the program has closed all descriptors that it did not know
            return b""

    def order(self, word: bytes) -> None:
        """Tells it to do something, if it is there."""
        with contextlib.suppress(OSError):
            os.write(self._control, word)

    def leave_alone(self) -> None:
        """From here on it is on its own; `listen` ends."""
        fd, self._control = self._control, -1
        close(fd)

    def close(self) -> None:
        """Closes this process's descriptors."""
        self.leave_alone()
        fd, self._status = self._status, -1
        close(fd)


def pipe() -> tuple[int, int]:
    """The two ends of a pipe, out of the way of the numbers that have a meaning."""
    read, write = os.pipe()
    return lifted(read), lifted(write)


def lifted(fd: int) -> int:
    """`fd` under a number of at least LOWEST_FD, closed on exec."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
    finally:
        os.close(fd)


def close(fd: int) -> None:
    """Closes a descriptor that may be closed already; below 0 there is none."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.close(fd)


def library_path() -> list[str]:
    """Where what ships spools is imported from."""
    # ZeroMQ is found, and not imported: a program's start would wait for that.
    places = (str(Path(spec.origin or "").parents[1]) for spec in map(find_spec, ("msgpack", "zmq")) if spec)
    return list(dict.fromkeys((_bus_path(), *places)))


def _bus_path() -> str:
    import allranks_bus

    return str(Path(allranks_bus.__file__).parents[1])


def _spawn(command: Sequence[str], descriptors: Mapping[int, int], env: Mapping[str, str]) -> int:
    """Starts the command as nobody's child, with these descriptors under these numbers; the pid of what starts it."""
    actions = [
        *((os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, *STREAMS)),
        *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in descriptors.items()),
    ]
    try:
        return os.posix_spawn(_SHELL[0], [*_SHELL, *command], env, file_actions=actions, setsid=True, setsigmask=())
    except FileNotFoundError:
        detach = [sys.executable, "-I", "-S", "-c", _DETACH, *command]
        return os.posix_spawn(sys.executable, detach, env, file_actions=actions, setsid=True, setsigmask=())
