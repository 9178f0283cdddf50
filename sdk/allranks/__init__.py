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

from allranks._current import agree, alert, define_metric, expect, finish, init, log, save, section, status, watch
from allranks._run import Run
from allranks.values import Histogram
from allranks_bus.version import __version__

if TYPE_CHECKING:
    from allranks._config import Config, Summary
    from allranks.client import Client as Client

    # The current run: before `init` the one that it will be for, and in a rank that leaves it to another the same.
    run: Run
    config: Config
    summary: Summary


def __getattr__(name: str) -> Any:
    """The attributes that depend on the current run, and those that few programs need."""
    from allranks import _current

    if name == "Client":
        from allranks.client import Client

        return Client
    if name == "run":
        return _current.current_or_implied()
    if name in ("config", "summary"):
        return getattr(_current.current_or_implied(), name)
    raise AttributeError(f"module 'allranks' has no attribute {name!r}")


__all__ = [
    "Client",
    "Histogram",
    "Run",
    "__version__",
    "agree",
    "alert",
    "config",
    "define_metric",
    "expect",
    "finish",
    "init",
    "log",
    "run",
    "save",
    "section",
    "status",
    "summary",
    "watch",
]
