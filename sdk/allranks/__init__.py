"""Hear from every rank: `init`, `log`, and whatever happens, nothing of it is lost.

    import allranks

    run = allranks.init(project="mnist", config={"lr": 3e-4})
    for step in range(1000):
        allranks.log({"loss": loss})

Every process of a training calls it alike; a collector, which starts by itself on one machine, stores what they log
and shows it. See `allranks.init` and `allranks.Run`; `allranks.Client` reads it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allranks._current import define_metric, finish, init, log, status
from allranks._run import Run
from allranks.values import Histogram
from allranks_bus.version import __version__

if TYPE_CHECKING:
    from allranks._config import Config, Summary
    from allranks.client import Client as Client

    # Of the current run; `run` is None before init.
    run: Run | None
    config: Config
    summary: Summary


def __getattr__(name: str) -> Any:
    """The attributes that depend on the current run, and those that few programs need."""
    from allranks import _current

    if name == "Client":
        from allranks.client import Client

        return Client
    current = _current.current()
    if name == "run":
        return current
    if name in ("config", "summary"):
        if current is None:
            raise AttributeError(f"allranks.{name} is there after allranks.init()")
        return getattr(current, name)
    raise AttributeError(f"module 'allranks' has no attribute {name!r}")


__all__ = [
    "Client",
    "Histogram",
    "Run",
    "__version__",
    "config",
    "define_metric",
    "finish",
    "init",
    "log",
    "run",
    "status",
    "summary",
]
