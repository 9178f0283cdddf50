"""The standard streams of this process, as descriptors: led through a pipe, and given back."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import termios
from collections.abc import Mapping

from allranks._tee import LOWEST_FD, close, lifted, pipe
from allranks_bus.polling import wait_readable, wait_writable
from allranks_bus.processes import boot_id
from allranks_bus.tee.modes import input_modes

_PIPE_BYTES = 256 * 1024
_PUMP_BYTES = 64 * 1024


class Captured:
    """One stream of this process: where it went before, and what it is led through now.

    Args:
        number: its descriptor.
        beside: another one of the same terminal, led through the same pty: what is printed to both, a progress bar
            and the lines between, is one picture, and its order is seen.

    Attributes:
        numbers: of the descriptors that are led through it.
        original: a descriptor of what was there before.
        source: the end from which the tee reads.
        modes: how the terminal takes input; empty where there is none.

    Raises:
        OSError: the stream is closed, or no pipe or pty can be had.
    """

    def __init__(self, number: int, beside: int | None = None) -> None:
        self.number = number
        self.numbers = (number,) if beside is None else (number, beside)
        self.original = self.source = self._target = -1
        self.modes = ""
        try:
            self.original = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
            self.is_terminal = os.isatty(number)
            if self.is_terminal:
                self.source, self._target = map(lifted, os.openpty())
                self._add_nothing()
                with contextlib.suppress(OSError):
                    self._takes_size()
            else:
                self.source, self._target = pipe()
                with contextlib.suppress(OSError):  # more than this user may have
                    fcntl.fcntl(self.source, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self.key = key_of(self._target)
        except BaseException:
            self.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether anything can be read from it still."""
        return self.source >= 0

    def begin(self) -> None:
        """Leads the stream through the pipe."""
        for number in self.numbers:
            os.dup2(self._target, number)
        target, self._target = self._target, -1
        close(target)

    def _takes_size(self) -> bool:
        """Whether the size of the terminal is another one; from then on the pty has it too."""
        size = fcntl.ioctl(self.original, termios.TIOCGWINSZ, bytes(8))
        if size == fcntl.ioctl(self.source, termios.TIOCGWINSZ, bytes(8)):
            return False
        fcntl.ioctl(self.source, termios.TIOCSWINSZ, size)
        return True

    def _add_nothing(self) -> None:
        """Makes the pty as the terminal behind it, which does to what is printed all that is to be done to it."""
        modes = termios.tcgetattr(self.original)
        modes[1] &= ~termios.OPOST
        termios.tcsetattr(self._target, termios.TCSANOW, modes)
        self.modes = input_modes(self._target)

    def give_back(self) -> None:
        """Leads the stream to where it went before; not where the program has put something else there."""
        for number in self.numbers:
            with contextlib.suppress(OSError):
                if key_of(number) == self.key:
                    os.dup2(self.original, number)

    def follow_size(self) -> None:
        """Gives the pty the size of the terminal behind it, and tells the programs there, as the kernel does."""
        if self.is_terminal:
            with contextlib.suppress(OSError, ValueError):  # closed meanwhile
                # What the kernel has told them was too early: they have asked the pty, which had the old size.
                if self._takes_size() and os.tcgetpgrp(self.original) == os.getpgrp():
                    os.killpg(os.getpgrp(), signal.SIGWINCH)

    def holds_anything(self) -> bool:
        """Whether anything that was printed has not been read yet."""
        try:
            return fcntl.ioctl(self.source, termios.FIONREAD, bytes(4)) != bytes(4)
        except (OSError, ValueError):  # it is closed
            return False

    def close(self) -> None:
        """Closes this process's descriptors but for the stream itself."""
        descriptors = (self.original, self.source, self._target)
        self.original = self.source = self._target = -1
        for fd in descriptors:
            close(fd)


def key_of(fd: int) -> str:
    """What tells the pipe or pty behind a descriptor from all others."""
    about = os.fstat(fd)
    # Numbers of inodes are small: those of another host may be the same.
    return f"{boot_id()[:8]}-{about.st_dev:x}-{about.st_ino:x}-{about.st_rdev:x}"


class Pump:
    """Moves what is left in pipes to where it belongs, without a tee."""

    def __init__(self, targets: Mapping[int, int]) -> None:
        self._targets = dict(targets)
        self._ready: list[int] = []

    def has_more(self, timeout_s: float | None) -> bool:
        """True once there is something to move, or an end to be seen; waits for it so long, None for ever."""
        self._ready = wait_readable(self._targets, timeout_s) if self._targets else []
        return bool(self._ready)

    def move(self) -> None:
        """Moves what is ready, and waits for who takes it."""
        for source in self._ready:
            try:
                part = os.read(source, _PUMP_BYTES)
            except OSError:  # nobody has the other side of the pty
                part = b""
            if part:
                with contextlib.suppress(OSError):  # what is behind it takes no more
                    _write_all(self._targets[source], part)
            else:
                del self._targets[source]


def _write_all(fd: int, part: bytes) -> None:
    view = memoryview(part)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody has made it so, for all who share it
            wait_writable(fd)


def flush() -> None:
    """Lets go of what Python holds back of the program's output."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(Exception):  # closed, or replaced by anything
            stream.flush()  # type: ignore[union-attr]  # there may be none
