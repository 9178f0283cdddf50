"""How a worker speaks with the benchmark that started it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def arguments() -> dict[str, Any]:
    """What the worker was told."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    return told


def answer(message: Mapping[str, Any]) -> None:
    """Gives an answer."""
    print(json.dumps(dict(message)), flush=True)


def await_word() -> str:
    """Waits for the benchmark's next line; ends the worker where the benchmark has gone."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(1)
    return line.strip()
