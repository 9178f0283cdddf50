"""What `alert()` was told, as it is kept, and how often."""

from __future__ import annotations

import time
from typing import Any

from allranks._warnings import warn_once

LEVELS = ("INFO", "WARN", "ERROR")
_MAX_CHARS = 16_384
# Titles that may have numbers in them must not fill memory.
_MAX_PACED = 1000


class Alerts:
    """The alerts of one run in this process."""

    def __init__(self) -> None:
        # By title, when one was last kept that may not come again at once.
        self._kept_at: dict[str, float] = {}

    def take(self, title: object, text: object, level: object, wait: object) -> dict[str, str] | None:
        """The map of an ALERT record; None where one of this title came less than `wait` seconds ago."""
        title, now = str(title)[:_MAX_CHARS], time.monotonic()
        if isinstance(wait, int | float) and wait > 0:
            if now - self._kept_at.get(title, float("-inf")) < wait:
                return None
            if len(self._kept_at) >= _MAX_PACED:
                self._kept_at.clear()
            self._kept_at[title] = now
        return {"title": title, "text": str(text)[:_MAX_CHARS], "level": _level(level)}


def _level(level: Any) -> str:
    """One of `LEVELS`, also of an enumeration's member, whatever it was given as."""
    word = str(getattr(level, "value", level)).upper()
    if word in LEVELS:
        return word
    warn_once("alert", f"alert(): level is one of {', '.join(LEVELS)}, not {level!r:.40}; INFO is used")
    return "INFO"
