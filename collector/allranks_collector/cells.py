"""One line of a terminal: what stands in its columns, and in which colours. Pure.

As long as a line is only added to, it is kept as it came, in runs of one style. The first time that something is
printed over what stands there it is laid out in cells, one for each column, as a terminal does. Both say the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from wcwidth import wcwidth

MAX_LINE_BYTES = 64 * 1024
# A line's colours are kept as long as they do not make much more of it than it is.
_MAX_RENDERED = 4 * MAX_LINE_BYTES
# Longer ones are laid out before something is printed over them: else each such print would copy the whole line.
_SHORT = 1024
# The cursor goes no further to the right of what stands there than this, as on a terminal of such a width.
FARTHEST_COLUMN = 1000
_TAB = 8

# Each of these characters takes just one column: what progress bars are mostly made of.
_NARROW = re.compile("[ -~\u00a1-\u00ac\u00ae-\u02ff\u2010-\u2027\u2030-\u205e\u2190-\u22ff\u2500-\u2595]*")
# The slots of a style, in the order in which they are written; what a parameter of SGR sets or empties.
_SLOTS = ("bold", "dim", "italic", "underline", "blink", "inverse", "hidden", "strike", "over", "fg", "bg", "line")
_SETS: dict[str, str] = {
    "1": "bold",
    "2": "dim",
    "3": "italic",
    "4": "underline",
    "5": "blink",
    "6": "blink",
    "7": "inverse",
    "8": "hidden",
    "9": "strike",
    "21": "underline",
    "53": "over",
    **dict.fromkeys(map(str, (*range(30, 38), *range(90, 98))), "fg"),
    **dict.fromkeys(map(str, (*range(40, 48), *range(100, 108))), "bg"),
}
_EMPTIES: dict[str, tuple[str, ...]] = {
    "22": ("bold", "dim"),
    "23": ("italic",),
    "24": ("underline",),
    "25": ("blink",),
    "27": ("inverse",),
    "28": ("hidden",),
    "29": ("strike",),
    "39": ("fg",),
    "49": ("bg",),
    "55": ("over",),
    "59": ("line",),
}
_EXTENDED = {"38": "fg", "48": "bg", "58": "line"}
_MAX_PARAMETER = 64

Run = tuple[str, str]


class Line:
    """One line: `put` prints at a column, `erase` empties a part, `text` is what people see.

    A column is a number from 0 on, or None: right behind all that stands there, as a line has it that only grows.

    Attributes:
        time_ns: when it last changed.
        size: its text in bytes, without colours; at most about MAX_LINE_BYTES.
        cut: how many bytes more there were.
        is_changed: something has been printed over or erased: the blanks at its end are no text.
    """

    __slots__ = ("_cells", "_runs", "cut", "is_changed", "size", "time_ns")

    def __init__(self, runs: Iterable[Run] = (), time_ns: int = 0) -> None:
        self._runs: list[Run] = list(runs)
        self._cells: list[Run] | None = None
        self.time_ns = time_ns
        self.size = sum(_bytes(text) for text, _ in self._runs)
        self.cut = 0
        self.is_changed = False

    @property
    def is_empty(self) -> bool:
        """True where nothing stands in it, not even a blank."""
        return not (self._runs if self._cells is None else self._cells)

    @property
    def plain(self) -> str | None:
        """Its text, where that is in one piece and without colours and anything missing; else None."""
        if self._cells is not None or self.cut or len(self._runs) > 1:
            return None
        if not self._runs:
            return ""
        text, style = self._runs[0]
        return None if style else text

    def add_plain(self, text: str) -> None:
        """Adds text in no colours at the end of a line that has room for it."""
        if text:
            self.size += _bytes(text)
            if self._runs:
                # Its pieces are of no colours: it has been plain so far.
                text = self._runs.pop()[0] + text
            self._runs.append((text, ""))

    def set_plain(self, text: str, *, is_changed: bool) -> None:
        """Has just this text in it, of narrow characters."""
        self._runs = [(text, "")] if text else []
        self._cells = None
        self.size = _bytes(text)
        self.is_changed = is_changed

    def column(self, at: int | None) -> int:
        """The number of a column."""
        if at is not None:
            return at
        plain = self.plain
        if plain is not None and len(plain) <= _SHORT and is_narrow(plain):
            return len(plain)
        return len(self._laid_out()) if self._runs or self._cells else 0

    def width(self) -> int:
        """How many columns it takes."""
        return self.column(None) if self._cells is None else len(self._cells)

    def put(self, at: int | None, text: str, style: str) -> int | None:
        """Prints text at a column; returns the one behind it. The text has no control characters but tabs."""
        if at is None and self._cells is None:
            self._append(text, style)
            return None
        at = self.column(at)
        plain = self.plain
        if (
            plain is not None
            and not style
            and len(plain) <= _SHORT
            and len(text) <= _SHORT
            and is_narrow(plain)
            and is_narrow(text)
        ):
            end = at + len(text)
            self.set_plain(plain[:at].ljust(at) + text + plain[end:], is_changed=self.is_changed or at < len(plain))
            return None if end >= len(plain) else end
        cells = self._laid_out()
        end = at + len(text)
        under = cells[at:end]
        has_room = not self.cut and self.size + 4 * len(text) <= MAX_LINE_BYTES
        if (
            has_room
            and at <= len(cells)
            and is_narrow(text)
            and _are_whole(under)
            and _are_whole(cells[end : end + 1])
        ):
            # The same as below, at once.
            cells[at:end] = [(character, style) for character in text]
            self.size += _bytes(text) - sum(_bytes(character) for character, _ in under)
            self.is_changed = self.is_changed or bool(under)
            return end
        for character in text:
            at = self._put_cell(cells, at, character, style)
        return at

    def erase(self, at: int | None, what: int) -> int | None:
        """Empties what is right of a column (0), left of it (1), both with it, or all (2); returns the column."""
        if what == 0 and at is None:
            return None
        at = self.column(at)
        if what == 2 or (what == 0 and at == 0):
            self._runs, self._cells = [], None
            self.size = self.cut = 0
            self.is_changed = False
            return at or None
        if what == 1 and at > FARTHEST_COLUMN:
            # No terminal is so wide: it is no program's way of drawing, and would cost the whole line each time.
            return at
        cells = self._laid_out()
        if what == 0:
            if at < len(cells):
                self._blank(cells, at)
                self.size -= sum(_bytes(text) for text, _ in cells[at:])
                del cells[at:]
                self.is_changed = True
            self.cut = 0
        else:
            end = min(at + 1, len(cells))
            if end:
                self._blank(cells, end - 1)
                self.size += end - sum(_bytes(text) for text, _ in cells[:end])
                cells[:end] = [(" ", "")] * end
                self.is_changed = True
        return at

    def text(self) -> str:
        """What people see, with its colours as SGR sequences; it ends in none."""
        plain = self.plain
        if plain is not None:
            return plain.rstrip(" ") if self.is_changed else plain
        runs = self.runs()
        while self.is_changed and runs and not runs[-1][1] and not self.cut:
            kept = runs.pop()[0].rstrip(" ")
            if kept:
                runs.append((kept, ""))
                break
        if self.cut:
            runs.append((f" … [{self.cut:,} bytes more]", ""))
        rendered = _rendered(runs)
        return rendered if len(rendered) <= _MAX_RENDERED else "".join(text for text, _ in runs)

    def runs(self) -> list[Run]:
        """Its text in pieces of one style."""
        runs: list[Run] = []
        pieces: list[str] = []
        last = None
        for text, style in self._runs if self._cells is None else self._cells:
            if style != last:
                if pieces:
                    runs.append(("".join(pieces), last or ""))
                pieces, last = [], style
            pieces.append(text)
        if pieces:
            runs.append(("".join(pieces), last or ""))
        return runs

    def _append(self, text: str, style: str) -> None:
        size = _bytes(text)
        if self.cut:
            self.cut += size
            return
        room = MAX_LINE_BYTES - self.size
        if size > room:
            kept = text.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
            text, self.cut = kept, size - _bytes(kept)
            size = _bytes(kept)
            if not text:
                return
        self._runs.append((text, style))
        self.size += size

    def _laid_out(self) -> list[Run]:
        if self._cells is None:
            cells: list[Run] = []
            size, cut, self.cut = self.size, self.cut, 0
            self.size = 0
            for text, style in self._runs:
                for character in text:
                    self._put_cell(cells, len(cells), character, style)
            self._cells, self._runs = cells, []
            self.size, self.cut = size, cut
        return self._cells

    def _put_cell(self, cells: list[Run], at: int, character: str, style: str) -> int:
        """Prints one character; returns the column behind it."""
        if character == "\t":
            stop = at - at % _TAB + _TAB
            if at != len(cells):
                return stop
            width = stop - at
        else:
            width = _width(character)
            if not width:
                if 0 < at <= len(cells):
                    return self._join(cells, at, character)
                width = 1
        size = _bytes(character)
        if at >= len(cells):
            gap = at - len(cells)
            if self.cut or self.size + gap + size > MAX_LINE_BYTES:
                # The cursor stays where the line was cut, so that all that follows is missing too.
                self.cut += size
                return len(cells)
            cells.extend([(" ", "")] * gap)
            cells.append((character, style))
            cells.extend([("", style)] * (width - 1))
            self.size += gap + size
            return at + width
        self.is_changed = True
        for column in range(at, min(at + width, len(cells))):
            self._blank(cells, column)
        if self.size + size > MAX_LINE_BYTES + len(cells):
            self.cut += size
            return at + width
        cells.extend([(" ", "")] * (at + width - len(cells)))
        self._set(cells, at, character, style)
        for column in range(at + 1, at + width):
            self._set(cells, column, "", style)
        return at + width

    def _join(self, cells: list[Run], at: int, mark: str) -> int:
        """Adds a mark that takes no column to the character before it."""
        size = _bytes(mark)
        if self.size + size > MAX_LINE_BYTES or (self.cut and at == len(cells)):
            self.cut += size
            return at
        base = at - 1
        while base and not cells[base][0]:
            base -= 1
        text, style = cells[base]
        cells[base] = (text + mark, style)
        self.size += size
        return at

    def _blank(self, cells: list[Run], at: int) -> None:
        """Makes blanks of a character that takes more columns than one, of which this is one."""
        if cells[at][0] and (at + 1 == len(cells) or cells[at + 1][0]):
            return
        base = at
        while base and not cells[base][0]:
            base -= 1
        end = base + 1
        while end < len(cells) and not cells[end][0]:
            end += 1
        for column in range(base, end):
            self._set(cells, column, " ", "")

    def _set(self, cells: list[Run], at: int, text: str, style: str) -> None:
        self.size += _bytes(text) - _bytes(cells[at][0])
        cells[at] = (text, style)


def _are_whole(cells: list[Run]) -> bool:
    """False where one of these holds the rest of a character that takes more columns than one."""
    return all(character for character, _ in cells)


def is_narrow(text: str) -> bool:
    """True where each character is known to take one column."""
    return _NARROW.fullmatch(text) is not None


@lru_cache(maxsize=4096)
def restyled(style: str, parameters: str) -> str:
    """The style that SGR's parameters make of another; a style is itself parameters, the fewest that set it."""
    slots = _applied({}, style) if style else {}
    slots = _applied(slots, parameters)
    return ";".join(slots[slot] for slot in _SLOTS if slot in slots)


def _applied(slots: dict[str, str], parameters: str) -> dict[str, str]:
    given = parameters.split(";")
    at = 0
    while at < len(given):
        parameter = given[at].lstrip("0") or "0"
        at += 1
        name = parameter.partition(":")[0]
        if len(parameter) > _MAX_PARAMETER:
            continue
        if name in _EXTENDED:
            count = 0 if ":" in parameter else {"5": 2, "2": 4}.get(given[at] if at < len(given) else "", 0)
            colour = given[at : at + count]
            at += count
            if ":" in parameter or (count and len(colour) == count and all(part.isdecimal() for part in colour[1:])):
                slots = {**slots, _EXTENDED[name]: ";".join([parameter, *colour])}
        elif parameter == "0":
            slots = {}
        elif parameter == "4:0":
            slots = {slot: value for slot, value in slots.items() if slot != "underline"}
        elif parameter in _SETS or name == "4":
            slots = {**slots, _SETS[name]: parameter}
        elif parameter in _EMPTIES:
            slots = {slot: value for slot, value in slots.items() if slot not in _EMPTIES[parameter]}
    return slots


def _rendered(runs: list[Run]) -> str:
    parts: list[str] = []
    last = ""
    for text, style in runs:
        if style != last:
            parts.append(f"\x1b[{'0;' if last and style else ''}{style or '0'}m")
            last = style
        parts.append(text)
    if last:
        parts.append("\x1b[0m")
    return "".join(parts)


@lru_cache(maxsize=8192)
def _width(character: str) -> int:
    # Some that separate lines count as controls there; they are shown, and take no column.
    return max(0, wcwidth(character))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
