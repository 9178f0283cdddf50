"""What stands in for allranks where the same script is to run without it: everything can be called, nothing is done.

Copied beside a program as `allranks`. What it gives pickles, as the real one does.
"""

from __future__ import annotations

from typing import Any


class Config(dict[str, Any]):
    """A mapping whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


class Run:
    """A run of which nothing is kept."""

    id = name = project = "none"
    dir = "."
    rank, world_size = 0, 1

    def __init__(self, config: Any = None) -> None:
        self.config = Config(vars(config) if hasattr(config, "__dict__") else config or {})
        self.summary = Config()

    def log(self, data: Any, step: int | None = None) -> None:
        """Nothing."""

    def define_metric(self, *arguments: Any, **more: Any) -> None:
        """Nothing."""

    watch = unwatch = alert = finish = define_metric

    def save(self, *arguments: Any, **more: Any) -> list[str]:
        """Nothing."""
        return []


run = Run()


def init(*arguments: Any, config: Any = None, **more: Any) -> Run:
    """The one run, with this configuration."""
    run.__init__(config)  # type: ignore[misc]
    return run


def __getattr__(name: str) -> Any:
    return getattr(run, name)
