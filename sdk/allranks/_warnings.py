"""Telling the user, at most once for each cause: a warning in a loop would be a plague of its own."""

from __future__ import annotations

import sys

_MAX_CAUSES = 1000
_said: set[str] = set()


def warn_once(cause: str, message: str) -> None:
    """Prints `allranks: message` to stderr, the first time that `cause` is met in this process. Never raises.

    Not `warnings.warn`: under `-W error` that raises, and nothing of ours may raise into the training.
    """
    if cause in _said or len(_said) >= _MAX_CAUSES:
        return
    _said.add(cause)
    say(message)


def say(message: str) -> None:
    """Prints one line to stderr, where there is one. Never raises."""
    try:
        sys.stderr.write(f"allranks: {message}\n")
        sys.stderr.flush()
    except Exception:
        pass  # stderr is closed, replaced by something odd, or its disk is full: there is nowhere to say so


def forget() -> None:
    """Lets every cause be told again: a forked child speaks for itself."""
    _said.clear()
