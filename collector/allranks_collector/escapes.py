"""Text of ranks for a terminal or a file: its colours may be kept, and nothing else can move, ask or set anything.

Pure. Escape sequences after ECMA-48 (§5.3–5.6): `ESC [` parameters and a final byte, strings up to their end, `ESC`
and a character; also in their one-character forms of C1.
"""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences
    r"|(?:\x1b[P\]X^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # strings: titles, links, pictures
    r"|\x1b[ -/]*[0-~]?"  # all others
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_RESET = "\x1b[0m"


def shown(text: str, *, colours: bool) -> str:
    """`text` for a terminal, or for a file: with `colours` those that it has, and a reset behind them."""
    if text.isprintable():
        return text  # most lines are
    has_colours = False

    def kept(found: re.Match[str]) -> str:
        nonlocal has_colours
        if not colours or _COLOUR.fullmatch(found[0]) is None:
            return ""
        has_colours = True
        return f"\0{found[0][1:]}"

    # A colour's escape stands as NUL, which the text has lost by then, until the others have been looked at.
    marked = _SEQUENCE.sub(kept, text.replace("\0", "·"))
    plain = "".join(c if c.isprintable() or c in "\t\0" else "·" for c in marked).replace("\0", "\x1b")
    return plain + _RESET if has_colours else plain
