"""A terminal without a width: what is printed is played on the last lines, as people would have seen it. Pure.

It has no width, and the height of REACH lines above the lowest one: there the cursor may go and change what stands
(progress bars in several lines), and no further. What has left that window is final. Text, colours, carriage returns,
backspaces, tabs, movements of the cursor and the erasing of lines are played. Everything else that escape sequences
and control characters tell a terminal is dropped, the clearing of a screen too: what was printed stays.

Most streams never go up, so a line is given away as final when it ends, and is taken back in the rare case that the
cursor goes up to it after all (`take_back`). From then on as many lines are kept back as the cursor has gone
up, until it has not gone up for a long time. That keeps a plain stream free of any cost, and takes each line of a
progress bar back at most once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from allranks_collector.cells import FARTHEST_COLUMN, Line, restyled

REACH = 64
# What the lines in reach may hold in all; of lines that are very long, fewer are in reach.
REACH_BYTES = 256 * 1024
# After so many lines without any way up, lines are given away at once again.
IDLE_LINES = 4 * REACH

_TOKENS = re.compile(
    r"([^\x00-\x08\x0a-\x1f\x7f-\x9f]+)"  # 1: text
    r"|\x1b\[([0-?]{0,128})([ -/]{0,4}[@-~])"  # 2, 3: parameters and name of a control sequence
    r"|\x1b\[[0-?]{0,128}[ -/]{0,4}"  # one that is none
    r"|\x1b[\]PX^_][^\x00-\x1f\x7f-\x9f]*[\x07\x9c]?"  # a string: titles, links, images
    r"|\x1b([0-Z\\^-~])"  # 4: the name of a short sequence
    r"|\x1b[ -/]{0,4}[0-~]?"
    r"|([\x00-\x1f\x7f-\x9f])"  # 5: a control character
)
_STRING = re.compile(r"[^\x00-\x1f\x7f-\x9f]*[\x07\x9c]?")
_STRING_BEGINS = re.compile(r"\x1b[\]PX^_][^\x00-\x1f\x7f-\x9f]*")
# What may yet become an escape sequence.
_BEGUN = re.compile(r"\x1b(?:\[[0-?]{0,128}[ -/]{0,4}|[ -/]{0,4})")

# A line that is final: when it last changed, and its text.
Final = tuple[int, str]


class Terminal:
    """The lines in play of one stream, and the cursor among them.

    Attributes:
        first: the number of the first line in play.
        lines: those in play, at least one: the last is the lowest that there has been.
        row, column: where the cursor is: an index of `lines`, and a column of that line, as `Line` has it.
        style: the colours of what is printed next.
        final: lines that have become final, in order; the last one is that before `first`.
    """

    def __init__(self, *, keeps_history: bool = False) -> None:
        self.first = 0
        self.lines = [Line()]
        self.row = 0
        self.column: int | None = None
        self.style = ""
        self.final: list[Final] = []
        self._keeps_history = keeps_history
        # How far above the lowest line, in which column and colours.
        self._saved: tuple[int, int, str] | None = None
        self._held_back = 0
        self._idle = 0
        # The beginning of an escape sequence; and whether we are within a string.
        self._begun = ""
        self._is_in_string = False
        self._now = 0
        self._take_back: Callable[[int], list[Final]] = _nothing
        self._sequences: dict[str, Callable[[str], None]] = {
            "m": self._sgr,
            "A": lambda given: self._up(_count(given)),
            "B": lambda given: self._down(_count(given)),
            "C": lambda given: self._to_column(self._at() + _count(given)),
            "D": lambda given: self._to_column(self._at() - _count(given)),
            "E": self._next_lines,
            "F": self._lines_before,
            "G": lambda given: self._to_column(_count(given) - 1),
            "`": lambda given: self._to_column(_count(given) - 1),
            "J": self._erase_below,
            "K": self._erase_in_line,
            "s": lambda _: self._save(),
            "u": lambda _: self._restore(),
        }
        self._short: dict[str, Callable[[], None]] = {
            "7": self._save,
            "8": self._restore,
            "D": self._line_feed,
            "E": self._new_line,
            "M": lambda: self._up(1),
        }
        self._controls: dict[str, Callable[[], None]] = {
            "\n": self._new_line,
            "\v": self._line_feed,
            "\f": self._line_feed,
            "\r": self._carriage_return,
            "\b": lambda: self._to_column(self._at() - 1),
        }

    @property
    def is_plain(self) -> bool:
        """True where text that comes next is just added to the only line in play."""
        return not (len(self.lines) > 1 or self._held_back or self.style or self._begun or self._is_in_string)

    def play(self, text: str, time_ns: int, take_back: Callable[[int], list[Final]]) -> None:
        """Takes in what is printed next.

        Args:
            take_back: gives the final lines from that number up to the first in play; they are final no more.
        """
        self._now, self._take_back = time_ns, take_back
        text = self._begun + text
        self._begun = ""
        if self._is_in_string:
            text = self._after_string(text)
        at = text.rfind("\x1b")
        if at >= 0 and _BEGUN.fullmatch(text, at):
            self._begun = text[at:]
            text = text[:at]
        for token in _TOKENS.finditer(text):
            kind = token.lastindex
            if kind == 1:
                self._print(token[1])
            elif kind == 5:
                if play := self._controls.get(token[5]):
                    play()
            elif kind == 3:
                if move := self._sequences.get(token[3]):
                    move(token[2])
            elif kind == 4:
                if short := self._short.get(token[4]):
                    short()
            elif _STRING_BEGINS.fullmatch(text, token.start()):
                self._is_in_string = True

    def end(self) -> None:
        """Makes all lines final: nothing follows. Empty ones at the end, which nobody has ended, are none."""
        self._begun, self._is_in_string = "", False
        while len(self.lines) > self.row and self.lines and not self.lines[-1].text():
            self.lines.pop()
        while self.lines:
            self._give_away()
        self.lines, self.row, self.column = [Line()], 0, None

    def interrupt(self) -> None:
        """Something is missing here: what follows stands in a line of its own, and in no colours."""
        self._begun, self._is_in_string, self.style = "", False, ""
        self.row = len(self.lines) - 1
        self.column = None
        if not self.lines[-1].is_empty:
            self._new_line()

    def pass_over(self, count: int) -> None:
        """Takes note that the only line in play and others that have ended after it, `count` in all, are final."""
        self.first += count
        self.lines[0] = Line()
        self.column = None
        self._idle += count

    def state(self) -> list[Any]:
        """All of it, for `restore`."""
        lines = [(line.runs(), line.time_ns, line.size, line.cut, line.is_changed) for line in self.lines]
        place = (self.first, self.row, self.column, self.style, self._saved)
        return [lines, *place, self._held_back, self._idle, self._begun, self._is_in_string]

    def restore(self, state: list[Any]) -> None:
        """Becomes the terminal whose `state` this is."""
        lines, self.first, self.row, self.column, self.style, saved, *rest = state
        self._saved = saved and tuple(saved)
        self._held_back, self._idle, self._begun, self._is_in_string = rest
        self.lines = []
        for runs, time_ns, size, cut, is_changed in lines:
            line = Line(((text, style) for text, style in runs), time_ns)
            line.size, line.cut, line.is_changed = size, cut, is_changed
            self.lines.append(line)

    def _after_string(self, text: str) -> str:
        """What follows the string that we are in. Any control ends it, so that no output is lost for long."""
        match = _STRING.match(text)
        end = match.end() if match else 0
        self._is_in_string = end == len(text) and text[-1:] not in ("\a", "\x9c")
        return text[end:]

    def _print(self, text: str) -> None:
        line = self.lines[self.row]
        if self._keeps_history and self.column is not None and self.column < line.width():
            self._break()
            line = self.lines[self.row]
        line.time_ns = self._now
        self.column = line.put(self.column, text, self.style)

    def _at(self) -> int:
        return self.lines[self.row].column(self.column)

    def _to_column(self, column: int) -> None:
        line = self.lines[self.row]
        column = max(0, min(column, max(self._at(), line.width(), FARTHEST_COLUMN)))
        self.column = None if line.is_empty and not column else column

    def _carriage_return(self) -> None:
        self.column = None if self.lines[self.row].is_empty else 0

    def _new_line(self) -> None:
        self._go_down()
        self._carriage_return()

    def _line_feed(self) -> None:
        column = self._at()
        self._go_down()
        self.column = None
        self._to_column(column)

    def _go_down(self) -> None:
        line = self.lines[self.row]
        line.time_ns = self._now
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append(Line(time_ns=self._now))
            self._idle += 1
            self._settle()
        if line.size > REACH_BYTES // REACH:
            self._limit()

    def _settle(self) -> None:
        """Gives away what is out of reach."""
        if self._idle > IDLE_LINES:
            self._held_back = 0
        while len(self.lines) - 1 > self._held_back and self.row:
            self._give_away()

    def _limit(self) -> None:
        """Gives away the first lines where all hold too much."""
        for _ in range(min(self.row, self._out_of_reach())):
            self._give_away()

    def _out_of_reach(self) -> int:
        """How many of the first lines are out of reach, because all hold too much; never the lowest."""
        size = self.lines[-1].size
        for row in range(len(self.lines) - 2, -1, -1):
            size += self.lines[row].size
            if size > REACH_BYTES:
                return row + 1
        return 0

    def _give_away(self) -> None:
        line = self.lines.pop(0)
        self.final.append((line.time_ns, line.text()))
        self.first += 1
        self.row -= 1

    def _up(self, count: int) -> None:
        if self._keeps_history:
            self._carriage_return()
            return
        column = self._at()
        lowest = self.first + len(self.lines) - 1
        wanted = max(0, lowest - REACH, self.first + self.row - count)
        is_long = self.lines[self.row].size > REACH_BYTES // REACH
        if wanted < self.first:
            back = self._taken_back(wanted)
            self.lines[:0] = [_line_of(text, time_ns) for time_ns, text in back]
            self.first -= len(back)
            self.row += len(back)
            is_long = True
        self.row = max(0, min(self.row, wanted - self.first))
        self._held_back = max(self._held_back, lowest - wanted)
        self._idle = 0
        if is_long:
            self.row = max(self.row, self._out_of_reach())
            self._limit()
        self.column = None
        self._to_column(column)

    def _taken_back(self, wanted: int) -> list[Final]:
        from_here = max(0, len(self.final) - (self.first - wanted))
        back = self.final[from_here:]
        del self.final[from_here:]
        if len(back) < self.first - wanted:
            self.first -= len(back)
            older = self._take_back(wanted)
            self.first += len(back)
            back = older + back
        return back

    def _down(self, count: int) -> None:
        """Down to the lowest line at most, as where the screen ends."""
        if self._keeps_history:
            self._carriage_return()
            return
        column = self._at()
        self.row = min(self.row + count, len(self.lines) - 1)
        self.column = None
        self._to_column(column)

    def _next_lines(self, given: str) -> None:
        self._down(_count(given))
        self._carriage_return()

    def _lines_before(self, given: str) -> None:
        self._up(_count(given))
        self._carriage_return()

    def _save(self) -> None:
        self._saved = (len(self.lines) - 1 - self.row, self._at(), self.style)

    def _restore(self) -> None:
        if self._saved is None:
            return
        above, column, self.style = self._saved
        here = len(self.lines) - 1 - self.row
        if above > here:
            self._up(above - here)
        elif above < here:
            self._down(here - above)
        self._to_column(column)

    def _erase_in_line(self, given: str) -> None:
        if given in ("", "0", "1", "2"):
            self._erase(int(given or "0"))

    def _erase_below(self, given: str) -> None:
        """Only what is below is erased: who clears the screen does not mean what is kept of it."""
        if given in ("", "0"):
            self._erase(0)
            for line in self.lines[self.row + 1 :]:
                line.erase(0, 2)
                line.time_ns = self._now

    def _erase(self, what: int) -> None:
        line = self.lines[self.row]
        if self._keeps_history:
            if not line.is_empty:
                self._break()
            return
        line.time_ns = self._now
        self.column = line.erase(self.column, what)

    def _break(self) -> None:
        """Ends the line before it is changed: its state so far is history."""
        self.lines.append(Line(time_ns=self._now))
        self.row += 1
        self._settle()
        self.column = None

    def _sgr(self, given: str) -> None:
        if not given.startswith(("<", "=", ">", "?")):
            self.style = restyled(self.style, given)


def _line_of(text: str, time_ns: int) -> Line:
    """A line with the text that one has had."""
    runs: list[tuple[str, str]] = []
    style = ""
    for token in _TOKENS.finditer(text):
        if token[1]:
            runs.append((token[1], style))
        elif token[3] == "m":
            style = restyled(style, token[2])
    return Line(runs, time_ns)


def _count(given: str) -> int:
    """The number in a control sequence; at least 1, which is also what none stands for."""
    number = given.partition(";")[0]
    return max(1, int(number[:6])) if number.isdecimal() else 1


def _nothing(_: int) -> list[Final]:
    return []
