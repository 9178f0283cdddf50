"""What the API stands on: the store, the settings, and what only the running service knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

from fastapi import Depends, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from allranks_collector.live import Hub
    from allranks_collector.queries import LiveStats
    from allranks_collector.settings import Settings
    from allranks_collector.store import Store


class LiveView(Protocol):
    """What the running service knows beyond the database. All but `hub` is called from worker threads."""

    @property
    def hub(self) -> Hub:
        """Where notes for the viewers go."""
        ...

    def last_seen(self, writer: int) -> int | None:
        """When this writer was last heard, in ns; None where it is not live."""
        ...

    def series_stats(self) -> LiveStats:
        """The figures of the running runs' series: `SeriesStats.columns()`."""
        ...

    def status(self) -> Mapping[str, Any]:
        """What `/api/collector` says of the service, as JSON: version, pid, uptime, writers …"""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether events are taken and stored, and if not, why."""
        ...

    def counters(self) -> Mapping[str, float]:
        """Own figures for `/metrics` by OpenMetrics name, labels in braces allowed; counters end in `_total`."""
        ...


@dataclass(frozen=True)
class ApiContext:
    """Everything that the handlers use.

    Attributes:
        remove_run: removes the run with this number from memory and store, called in a worker thread; None means
            `store.remove_run`, which is right only where nothing is ingested.
    """

    store: Store
    live: LiveView
    settings: Settings
    remove_run: Callable[[int], None] | None = None


def _context(request: Request) -> ApiContext:
    return cast("ApiContext", request.app.state.context)


Context = Annotated[ApiContext, Depends(_context)]
