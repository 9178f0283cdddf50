"""Waiting in tests: for a fact, with a deadline, and never for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LOOK_S = 0.01


def wait_until(fact: Callable[[], T | None], what: str, *, timeout_s: float = 60.0) -> T:
    """What `fact` gives once it is true; fails the test with `what` where that takes longer than `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = fact()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain until {what}; at last: {found!r:.500}")
        time.sleep(_LOOK_S)
