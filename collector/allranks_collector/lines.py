"""Lines: from the bytes that a rank prints to the lines that people read. Pure.

A line ends with a newline. A carriage return before it begins the line anew, as progress bars do: what was printed
last is kept. Bytes that are no UTF-8 are replaced, and a line of more than MAX_LINE_BYTES is cut. All else, escape
sequences too, is text. However the bytes are cut into chunks, the lines are the same.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

import msgpack

MAX_LINE_BYTES = 64 * 1024


@dataclass
class OpenLine:
    """One stream's line that has not ended yet.

    Attributes:
        line: its number; the next one has one more.
        time_ns: when its newest bytes were printed.
        raw: what it holds, from its last carriage return on; at most MAX_LINE_BYTES.
        cut: how many bytes more there were.
        stored: the numbers of the lines that table `open_lines` has.
        is_returned: a carriage return has come, and nothing after it: what comes next begins the line anew.
    """

    line: int = 0
    time_ns: int = 0
    raw: bytes = b""
    cut: int = 0
    is_returned: bool = False
    stored: list[int] = field(default_factory=list[int], compare=False)

    def state(self) -> bytes:
        """All of it, for `restored`."""
        return msgpack.packb([self.line, self.time_ns, self.raw, self.cut, self.is_returned])

    @classmethod
    def restored(cls, state: bytes, stored: list[int]) -> OpenLine:
        """The line whose `state` this is."""
        return cls(*msgpack.unpackb(state), stored)

    def open_lines(self) -> list[tuple[int, int, str]]:
        """The lines that may still change: number, time and text of each."""
        return [(self.line, self.time_ns, self.text)]

    @property
    def text(self) -> str:
        """The line as it stands; of a character that has not come as a whole, nothing."""
        return open_text(self.raw, self.cut)

    def feed(self, chunk: bytes, time_ns: int) -> tuple[int, str]:
        """Takes in the stream's next bytes: how many lines have ended with them, and these lines joined by newlines.

        They have the numbers from what `line` was before.
        """
        self.time_ns = time_ns
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            self._add(tail)
            return 0, ""
        if self.cut or self.is_returned or b"\r" in head or len(self.raw) + len(head) > MAX_LINE_BYTES:
            text = self._end_one_by_one(head)
        else:
            # What most chunks are: decoded at once, and never taken apart here.
            text = (self.raw + head).decode("utf-8", "replace")
        count = head.count(b"\n") + 1
        self.line += count
        self.raw, self.cut, self.is_returned = b"", 0, False
        self._add(tail)
        return count, text

    def _end_one_by_one(self, head: bytes) -> str:
        ended: list[str] = []
        for part in head.split(b"\n"):
            self._add(part)
            ended.append(_text(self.raw, self.cut, is_final=True))
            self.raw, self.cut, self.is_returned = b"", 0, False
        return "\n".join(ended)

    def _add(self, part: bytes) -> None:
        """Takes in bytes of one line."""
        if not part:
            return
        kept = part.rstrip(b"\r")
        if kept:
            _, is_anew, last = kept.rpartition(b"\r")
            if is_anew or self.is_returned:
                self.raw, self.cut = b"", 0
            room = MAX_LINE_BYTES - len(self.raw)
            self.raw += last[:room]
            self.cut += max(0, len(last) - room)
        self.is_returned = len(kept) < len(part)


def open_text(raw: bytes, cut: int) -> str:
    """The text of a line that may still go on, as an `OpenLine` holds it."""
    return _text(raw, cut, is_final=False)


def _text(raw: bytes, cut: int, *, is_final: bool) -> str:
    text, _ = codecs.utf_8_decode(raw, "replace", is_final and not cut)
    return f"{text} … [{cut:,} bytes more]" if cut else text
