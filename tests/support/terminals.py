"""Programs in a terminal of their own, with the test at its keyboard."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

_DEADLINE_S = 60.0


class Terminal:
    """What a program has been given for a terminal, seen from the other side.

    Attributes:
        process: the program.
        shown: all that has come so far, as it was sent.
        modes_at_first: its `modes` before the program began.
    """

    def __init__(self, process: subprocess.Popen[bytes], keyboard: int, modes_at_first: list[object]) -> None:
        self.process = process
        self.shown = b""
        self.modes_at_first = modes_at_first
        self._keyboard = keyboard

    def modes(self) -> list[object]:
        """What the terminal does with keys and words, as termios says it."""
        return termios.tcgetattr(self._keyboard)

    def await_shown(self, words: bytes, *, timeout_s: float = _DEADLINE_S) -> None:
        """Returns when these words have come."""
        deadline = time.monotonic() + timeout_s
        while words not in self.shown:
            assert self._read(deadline), f"{words!r} is not shown: {self.shown[-4000:]!r}"

    def await_end(self, *, timeout_s: float = _DEADLINE_S) -> int:
        """Reads until nobody has the terminal open any more; the program's exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def type(self, keys: bytes) -> None:
        """Presses these keys."""
        os.write(self._keyboard, keys)

    def resize(self, rows: int, columns: int) -> None:
        """Gives its window another size."""
        fcntl.ioctl(self._keyboard, termios.TIOCSWINSZ, _size(rows, columns))

    def hang_up(self) -> None:
        """Closes the terminal under the program."""
        if self._keyboard >= 0:
            os.close(self._keyboard)
            self._keyboard = -1

    def _read(self, deadline: float) -> bool:
        """Takes what comes next; False at the end."""
        is_ready, _, _ = select.select([self._keyboard], [], [], max(0.0, deadline - time.monotonic()))
        assert is_ready, f"nothing more is shown in time: {self.shown[-4000:]!r}"
        with contextlib.suppress(OSError):  # EIO is the end
            self.shown += os.read(self._keyboard, 65536)
            return True
        return False


@contextlib.contextmanager
def in_terminal(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    size: tuple[int, int] = (24, 80),
    takes_keys: bool = False,
) -> Generator[Terminal]:
    """Runs a program in a terminal, in a session of its own; it has ended, or is killed, after the block.

    Args:
        size: of its window: rows and columns.
        takes_keys: it is the terminal's foreground: Ctrl-C is a signal to it.
    """
    keyboard, screen = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, _size(*size))
    modes: list[object] = termios.tcgetattr(screen)

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=screen,
        stdout=screen,
        stderr=screen,
        start_new_session=True,
        preexec_fn=take_terminal if takes_keys else None,
    ) as process:
        os.close(screen)
        terminal = Terminal(process, keyboard, modes)
        try:
            yield terminal
        finally:
            process.kill()
            terminal.hang_up()


def _size(rows: int, columns: int) -> bytes:
    return struct.pack("4H", rows, columns, 0, 0)
