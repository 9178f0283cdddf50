"""What came instead, in a few words: for messages that are built of what a peer sent."""

from __future__ import annotations

import reprlib

_brief = reprlib.Repr()
_brief.maxlevel, _brief.maxstring, _brief.maxother, _brief.maxlong = 2, 100, 100, 40


def brief(value: object) -> str:
    """`repr(value)`, cut short however large or deep the value is."""
    return _brief.repr(value)
