"""A bound on the log: whoever sends rubbish at full speed must not fill a disk with what is said about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

BURST_LINES = 500
LINES_PER_S = 10.0


class LineLimit(logging.Filter):
    """Lets `burst` lines through at once and `rate` a second after that; the next one tells how many were left out.

    Errors always come through: they are ours, and each place that logs them bounds them itself.
    """

    def __init__(
        self, burst: int = BURST_LINES, rate: float = LINES_PER_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._burst, self._rate, self._clock = burst, rate, clock
        self._room, self._at = float(burst), clock()
        self._left_out = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        self._room = min(self._burst, self._room + (now - self._at) * self._rate)
        self._at = now
        if record.levelno < logging.ERROR:
            if self._room < 1.0:
                self._left_out += 1
                return False
            self._room -= 1.0
        if self._left_out:
            record.msg, record.args = f"({self._left_out} lines left out) {record.getMessage()}", None
            self._left_out = 0
        return True
