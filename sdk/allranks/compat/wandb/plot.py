"""Custom charts, which are left out: each function gives an object that does nothing, and says so once."""

from __future__ import annotations

from typing import Any

from allranks.compat.wandb._left_out import LeftOut


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return type(f"plot.{name}", (LeftOut,), {})
