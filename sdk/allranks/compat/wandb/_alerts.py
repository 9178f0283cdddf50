"""Alerts, as wandb levels and paces them."""

from __future__ import annotations

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


def wait_s(duration: Any) -> float:
    """Seconds of a `wait_duration`, which may be a timedelta; None means a minute."""
    if duration is None:
        return DEFAULT_WAIT_S
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
