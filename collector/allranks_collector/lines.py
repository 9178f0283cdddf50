"""Lines: from the bytes that a rank prints to the lines that people read. Pure.

All that is printed to one stream is played on a `Terminal`. Text that just goes on, and progress bars that begin
their line anew, which is nearly everything, take short ways here that come to the same. However the bytes are cut
into chunks, the lines are the same.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import NamedTuple

import msgpack

from allranks_collector.cells import MAX_LINE_BYTES, is_narrow
from allranks_collector.terminal import Final, Terminal

# Bytes that are more than text: all controls but tab, newline and, in bars, carriage return. C1 controls are in UTF-8
# what _C1 finds.
_CONTROLS = bytes([*range(0x09), *range(0x0B, 0x0D), *range(0x0E, 0x20), 0x7F])
_C1 = re.compile(rb"\xc2[\x80-\x9f]")
# Whole lines as loggers colour them: pieces in a colour of their own, each reset, none right behind another. Played,
# they come out just as they are.
_COLOURED = re.compile(
    "[^\x1b]*(?:\x1b\\[(?:1;)?(?:[1-9]|[34][0-7]|9[0-7]|10[0-7]|[34]8;5;[0-9]{1,3})m[^\x1b\n]+\x1b\\[0m(?!\x1b)[^\x1b]*)*"
)
# What may follow them: nothing that moves the cursor.
_ONLY_COLOURS = re.compile("[^\x1b]*(?:\x1b\\[[0-9;]*m[^\x1b]*)*(?:\x1b(?:\\[[0-9;]*)?)?")


class Block(NamedTuple):
    """Lines that are final: `lines` of them from number `first` on, joined by newlines in `text`."""

    first: int
    time_ns: int
    lines: int
    text: str


class LineStream:
    """The lines of one stream of a writer.

    Attributes:
        time_ns: when its newest bytes were printed.
        stored: the numbers of the lines that table `open_lines` has.
    """

    def __init__(self, *, keeps_history: bool = False) -> None:
        self.time_ns = 0
        self.stored: list[int] = []
        self._terminal = Terminal(keeps_history=keeps_history)
        self._keeps_history = keeps_history
        # A character that has not come as a whole.
        self._raw = b""

    @property
    def first(self) -> int:
        """The number of the first line that may still change."""
        return self._terminal.first

    def feed(self, chunk: bytes, time_ns: int, take_back: Callable[[int], list[Final]]) -> list[Block]:
        """Takes in the stream's next bytes; the lines that are final by now.

        Args:
            take_back: gives the final lines from that number up to `first` (fewer, where there are no more), each as
                its time and text. They are not final any more: they come again in a later block.
        """
        self.time_ns = time_ns
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")
        raw = self._raw + chunk
        text, used = codecs.utf_8_decode(raw, "replace", False)
        self._raw = raw[used:]
        controls = len(raw) - len(raw.translate(None, _CONTROLS))
        if b"\xc2" in raw and _C1.search(raw):
            controls = -1
        if not controls and self._terminal.is_plain:
            short = self._go_on(text) if b"\r" not in raw else self._begin_anew(text)
            if short is not None:
                return short
        blocks: list[Block] = []
        if controls == raw.count(b"\x1b") and b"\r" not in raw:
            blocks, text = self._whole_lines(text, take_back)
        self._terminal.play(text, time_ns, take_back)
        return blocks + self._taken()

    def interrupt(self) -> list[Block]:
        """Lines are missing here: the lines that are final by that. What follows begins another."""
        self._end_character()
        self._terminal.interrupt()
        return self._taken()

    def end(self) -> list[Block]:
        """Nothing follows: the lines that are final by that, which are all."""
        self._end_character()
        self._terminal.end()
        return self._taken()

    def open_lines(self) -> list[tuple[int, int, str]]:
        """The lines that may still change: number, time and text of each; not the empty last ones."""
        first = self.first
        lines = [(first + at, line.time_ns, line.text()) for at, line in enumerate(self._terminal.lines)]
        while lines and not lines[-1][2]:
            lines.pop()
        return lines

    def state(self) -> bytes:
        """All that it takes to go on, for `restored`."""
        return bytes(msgpack.Packer().pack([self.time_ns, self._raw, self._terminal.state()]))

    @classmethod
    def restored(cls, state: bytes, stored: list[int], *, keeps_history: bool = False) -> LineStream:
        """The stream whose `state` this is."""
        stream = cls(keeps_history=keeps_history)
        stream.time_ns, stream._raw, terminal = msgpack.unpackb(state)
        stream._terminal.restore(terminal)
        stream.stored = stored
        return stream

    def _go_on(self, text: str) -> list[Block] | None:
        """Text without carriage returns, behind what the line has: decoded at once, and never taken apart."""
        terminal = self._terminal
        line, first = terminal.lines[0], terminal.first
        plain = line.plain
        if terminal.column is not None or plain is None or not _has_room(line.size, text):
            return None
        head, newline, tail = text.rpartition("\n")
        if not newline:
            line.add_plain(tail)
            line.time_ns = self.time_ns
            return []
        count = head.count("\n") + 1
        if line.is_changed:
            own, *others = head.split("\n", 1)
            head = "\n".join([(plain + own).rstrip(" "), *others])
        else:
            head = plain + head
        terminal.pass_over(count)
        terminal.lines[0].add_plain(tail)
        terminal.lines[0].time_ns = self.time_ns
        return [Block(first, self.time_ns, count, head)]

    def _whole_lines(self, text: str, take_back: Callable[[int], list[Final]]) -> tuple[list[Block], str]:
        """Lines in colours that come out as they are: those that are final, and what is yet to be played."""
        terminal = self._terminal
        line = terminal.lines[0]
        is_behind = terminal.is_plain and line.plain is not None and not line.is_changed and terminal.column is None
        begin = 0 if is_behind else text.find("\n") + 1
        end = text.rfind("\n") + 1
        if begin == end or not _COLOURED.fullmatch(text, begin, end) or not _ONLY_COLOURS.fullmatch(text, end):
            return [], text
        if begin:
            terminal.play(text[:begin], self.time_ns, take_back)
        blocks = self._go_on(text[begin:end]) if terminal.is_plain else None
        if not blocks:
            return [], text[begin:]
        # Nothing that follows goes up to these.
        final, terminal.final = terminal.final, []
        return _blocks(blocks[0].first - len(final), final) + blocks, text[end:]

    def _begin_anew(self, text: str) -> list[Block] | None:
        """A progress bar: text with carriage returns, of characters that all take one column."""
        terminal = self._terminal
        line = terminal.lines[0]
        plain = line.plain
        if plain is None or self._keeps_history or not _has_room(line.size, text):
            return None
        if terminal.column is not None and not text.startswith("\r"):
            if terminal.column:
                return None
            text = "\r" + text
        if not is_narrow(plain) or not is_narrow(text.replace("\r", "").replace("\n", "")):
            return None
        head, newline, tail = text.rpartition("\n")
        final: list[Final] = []
        if newline:
            for part in head.split("\n"):
                seen, is_changed, _ = _overprinted(plain, part)
                final.append((self.time_ns, seen.rstrip(" ") if is_changed or line.is_changed else seen))
                plain = ""
                line.is_changed = False
            terminal.pass_over(len(final))
        line = terminal.lines[0]
        seen, is_changed, column = _overprinted(plain, tail)
        line.set_plain(seen, is_changed=is_changed or line.is_changed)
        line.time_ns = self.time_ns
        terminal.column = column
        return _blocks(terminal.first - len(final), final)

    def _end_character(self) -> None:
        if self._raw:
            self._raw = b""
            self._terminal.play("\ufffd", self.time_ns, _nothing)

    def _taken(self) -> list[Block]:
        final = self._terminal.final
        self._terminal.final = []
        return _blocks(self.first - len(final), final)


def _has_room(size: int, text: str) -> bool:
    """False where a line of text, the first of which has so many bytes already, may be too long to be kept whole."""
    widest = 1 if text.isascii() else 4
    if size + widest * len(text) <= MAX_LINE_BYTES:
        return True
    return size + widest * max(map(len, text.split("\n"))) <= MAX_LINE_BYTES


def _overprinted(plain: str, text: str) -> tuple[str, bool, int | None]:
    """What is seen when text with carriage returns is printed behind `plain`; whether it changed; and the column."""
    added, *anew = text.split("\r")
    plain += added
    parts = [part for part in anew if part]
    seen = ""
    for part in reversed(parts):
        if len(part) > len(seen):
            seen += part[len(seen) :]
    is_changed = bool(parts) and (bool(plain) or len(parts) > 1)
    if len(plain) > len(seen):
        seen += plain[len(seen) :]
    if not anew or not seen:
        return seen, is_changed, None
    column = len(anew[-1])
    return seen, is_changed, None if column == len(seen) else column


def _blocks(first: int, final: list[Final]) -> list[Block]:
    """Lines as blocks of the same time."""
    blocks: list[Block] = []
    begin = 0
    for at in range(1, len(final) + 1):
        if at == len(final) or final[at][0] != final[begin][0]:
            texts = [text for _, text in final[begin:at]]
            blocks.append(Block(first + begin, final[begin][0], len(texts), "\n".join(texts)))
            begin = at
    return blocks


def _nothing(_: int) -> list[Final]:
    return []
