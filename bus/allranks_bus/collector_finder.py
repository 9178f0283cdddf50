"""The collector that something is meant for: its address, after it has been started if need be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from allranks_bus import processes
from allranks_bus.addresses import Address, parse_address
from allranks_bus.errors import AllranksError
from allranks_bus.home import Endpoint, read_endpoint
from allranks_bus.launch import ensure_collector

OFFLINE = "offline"
_EMBEDDED = "embedded:"
# How often the process of the embedded collector is looked at.
_LOOK_S = 0.5


class Unreachable(AllranksError):
    """There is no collector that could be spoken to."""


class CollectorFinder:
    """Finds the collector at `destination`: `embedded:HOME`, or a URL."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._endpoint: Endpoint | None = None
        self._look_at = 0.0

    def find(self, should_stop: Callable[[], bool]) -> Address | None:
        """Its address; None once `should_stop` says so. Waits where the embedded one has to be started.

        Raises:
            AllranksError: there is none.
        """
        destination = self._destination
        if destination == OFFLINE:
            raise Unreachable("it is offline: nothing is sent from there by itself")
        if not destination.startswith(_EMBEDDED):
            return parse_address(destination)
        home = destination.removeprefix(_EMBEDDED)
        self._endpoint = read_endpoint(Path(home)) or ensure_collector(
            {**os.environ, "ALLRANKS_HOME": home}, should_stop=lambda _: should_stop()
        )
        return parse_address(self._endpoint.url) if self._endpoint is not None else None

    def has_died(self, now: float) -> bool:
        """Whether the embedded one has ended since it was found, as far as that has been looked at."""
        endpoint = self._endpoint
        if endpoint is None or now < self._look_at:
            return False
        self._look_at = now + _LOOK_S
        return not processes.is_alive(endpoint.pid, endpoint.pid_start)
