"""Alerts, as wandb levels and paces them."""

from __future__ import annotations

import time
from datetime import timedelta
from enum import Enum
from typing import Any

DEFAULT_WAIT_S = 60.0


class AlertLevel(Enum):
    """How bad it is."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


def level_name(level: Any) -> str:
    """The level's name in allranks; INFO for what is none."""
    text = str(getattr(level, "value", level) or "INFO").upper()
    return text if text in AlertLevel.__members__ else "INFO"


class AlertPace:
    """Lets one alert of each title pass per `wait_duration`."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def may_pass(self, title: str, wait_duration: Any = None) -> bool:
        """Whether the last alert of this title is long enough ago; takes note of it if so.

        Args:
            wait_duration: seconds, or a timedelta; None means a minute.
        """
        now = time.monotonic()
        if now - self._last.get(title, float("-inf")) < _seconds(wait_duration):
            return False
        self._last[title] = now
        return True


def _seconds(duration: Any) -> float:
    if duration is None:
        return DEFAULT_WAIT_S
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
