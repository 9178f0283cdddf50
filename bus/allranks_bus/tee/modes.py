"""Modes: what a program makes of its terminal, which is the pty in between, is made of the one behind it too.

A program that draws on the whole screen asks for its keys one by one, and unseen, where it also prints (curses does).
What is typed comes from the terminal behind.
"""

from __future__ import annotations

import contextlib
import termios

# Of `tcgetattr`'s answer, all that is about input. What is done to output stays: the pty adds nothing of its own.
_INPUT = (0, 3, 6)  # iflag, lflag, cc


def input_modes(fd: int) -> str:
    """How a terminal takes input, as words to compare.

    Raises:
        termios.error: it is none, or has gone.
    """
    modes = termios.tcgetattr(fd)
    keys = ".".join(str(key if isinstance(key, int) else key[0]) for key in modes[6])
    return f"{modes[0]}.{modes[3]}.{keys}"


class Modes:
    """How the terminal behind a pty takes input.

    Args:
        source: the pty's side that is read.
        original: the terminal behind it.
        first: the `input_modes` of both before the program could change any.
    """

    def __init__(self, source: int, original: int, first: str) -> None:
        self._source, self._original = source, original
        self._first = self._now = first

    @property
    def are_changed(self) -> bool:
        """Whether the program wants them otherwise than at first."""
        return self._now != self._first

    def follow(self) -> None:
        """Brings the terminal behind to what the program wants, where that has changed.

        Who else has set it meanwhile (a shell, once the program was stopped) keeps it so.
        """
        with contextlib.suppress(termios.error):  # one of the two has gone
            wanted = input_modes(self._source)
            if wanted != self._now:
                is_as_left = input_modes(self._original) == self._now
                self._now = wanted
                if not is_as_left:
                    return
                own, modes = termios.tcgetattr(self._source), termios.tcgetattr(self._original)
                for at in _INPUT:
                    modes[at] = own[at]
                termios.tcsetattr(self._original, termios.TCSANOW, modes)
