"""What the API stands on: the store, the settings, and what only the running service knows."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, cast

from fastapi import Depends, Query, Request
from fastapi import Path as InPath

from allranks_bus.errors import AllranksError
from allranks_collector.queries import LineOrders

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Generator, Mapping

    import duckdb

    from allranks_collector.live import Hub
    from allranks_collector.queries import LiveStats
    from allranks_collector.settings import Settings
    from allranks_collector.store import Store


# Questions to the database at once. More would not be faster on the few cores of a collector, and its ingest needs
# some of them; so many more wait their turn, for so long. Both together leave some of anyio's 40 threads to the other
# handlers: /readyz answers also when the database is asked too much.
QUERIES_AT_ONCE = 4
QUERIES_WAITING = 20
TURN_S = 30.0


# Called with the number of a run, its id, and the ranks that are meant, None for all; gives the token, or None where
# nobody is there.
AskStacks: TypeAlias = "Callable[[int, str, Collection[int] | None], Coroutine[Any, Any, str | None]]"


class Busy(AllranksError):
    """Too many questions are being answered."""

    def __init__(self) -> None:
        super().__init__("the collector is busy with other questions: ask again later")


class LiveView(Protocol):
    """What the running service knows beyond the database. All but `hub` is called from worker threads."""

    @property
    def hub(self) -> Hub:
        """Where notes for the viewers go."""
        ...

    def last_seen(self, writer: int) -> int | None:
        """When this writer was last heard, in ns; None where it is not live."""
        ...

    def arriving(self, run_id: str) -> list[dict[str, Any]]:
        """The files of the run that are on their way: name, host, size, offset."""
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
        ask_stacks: asks the ranks of a run, by number and id, where they stand (`StacksDesk.ask`), in the event
            loop; None where there is nobody to ask.
        test_alerts: sends a test to all targets of alerts (`AlertDesk.test`), in the event loop.
        orders: what questions for lines have found out of their order.
    """

    store: Store
    live: LiveView
    settings: Settings
    remove_run: Callable[[int], None] | None = None
    ask_stacks: AskStacks | None = None
    test_alerts: Callable[[], Coroutine[Any, Any, list[dict[str, Any]] | None]] | None = None
    orders: LineOrders = field(default_factory=LineOrders)
    _turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(QUERIES_AT_ONCE))
    _seats: threading.Semaphore = field(
        default_factory=lambda: threading.Semaphore(QUERIES_AT_ONCE + QUERIES_WAITING)
    )

    @contextlib.contextmanager
    def reading(self) -> Generator[duckdb.DuckDBPyConnection]:
        """A cursor of the store, when it is this question's turn.

        Raises:
            Busy: it was not within TURN_S, or too many wait already.
        """
        with _acquired(self._seats, 0.0), _acquired(self._turns, TURN_S), self.store.cursor() as cursor:
            yield cursor


@contextlib.contextmanager
def _acquired(semaphore: threading.Semaphore, timeout_s: float) -> Generator[None]:
    if not semaphore.acquire(timeout=timeout_s):
        raise Busy
    try:
        yield
    finally:
        semaphore.release()


def _context(request: Request) -> ApiContext:
    return cast("ApiContext", request.app.state.context)


Context = Annotated[ApiContext, Depends(_context)]

# What most questions begin with.
RunId = Annotated[str, InPath(description="the run's id, a beginning of it that no other run has, or its name")]
OneAttempt = Annotated[int | None, Query(description="the newest if absent")]
