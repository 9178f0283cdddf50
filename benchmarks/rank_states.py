"""Somebody who watches the ranks of a run over HTTP, as a page does: told that something changed, he asks what."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Collection, Generator
from typing import Any
from urllib.parse import urlsplit

# Longer than between two signs of life of a stream.
_TIMEOUT_S = 30.0
_LOOK_S = 0.05


class Observer:
    """Sees the states of a run's ranks when they change."""

    def __init__(self, stream: http.client.HTTPResponse, asking: http.client.HTTPConnection, run: str) -> None:
        self._stream = stream
        self._asking = asking
        self._run = run

    def see(self, ranks: Collection[int], states: Collection[str], deadline: float) -> dict[int, float]:
        """When (monotonic) each of these ranks was seen in one of these states for the first time.

        Raises:
            RuntimeError: not all of them were by `deadline` (monotonic).
        """
        seen: dict[int, float] = {}
        while True:
            found = self.rows()
            now = time.monotonic()
            for rank in set(ranks) - set(seen):
                if rank in found and found[rank]["state"] in states:
                    seen[rank] = now
            if len(seen) == len(ranks):
                return seen
            if now >= deadline:
                told = {rank: row["state"] for rank, row in found.items()}
                raise RuntimeError(f"{len(seen)} of {len(ranks)} ranks were seen {'/'.join(states)}: {told}")
            self._await_note()

    def rows(self) -> dict[int, dict[str, Any]]:
        """What is known of each rank now; empty while the run is not known."""
        self._asking.request("GET", f"/api/runs/{self._run}/ranks")
        with self._asking.getresponse() as response:
            rows: list[dict[str, Any]] = json.load(response)["ranks"] if response.status == 200 else []
        self._asking.close()  # else the collector does, some seconds later
        return {row["rank"]: row for row in rows}

    def _await_note(self) -> None:
        while (line := self._stream.readline().strip()) != b"event: ranks":
            if line.startswith(b": keep-alive"):
                return


@contextlib.contextmanager
def observing(base: str, run: str) -> Generator[Observer]:
    """Somebody who watches the ranks of `run` at the collector of this URL; nothing is missed from here on."""
    address = urlsplit(base).netloc
    streaming, asking = (http.client.HTTPConnection(address, timeout=_TIMEOUT_S) for _ in range(2))
    with contextlib.closing(streaming), contextlib.closing(asking):
        # Of all runs: this one may not have come yet.
        streaming.request("GET", "/api/stream")
        with streaming.getresponse() as stream:
            stream.readline()
            yield Observer(stream, asking, run)


def await_steps(observer: Observer, ranks: Collection[int], step: int, deadline: float) -> None:
    """Returns once each of these ranks is known to have taken this step.

    Raises:
        RuntimeError: not all of them have by `deadline` (monotonic).
    """
    while True:
        found = observer.rows()
        steps = [found.get(rank, {}).get("last_step") for rank in ranks]
        if all(at is not None and at >= step for at in steps):
            return
        if time.monotonic() >= deadline:
            raise RuntimeError(f"not all ranks have come to step {step}: {steps}")
        time.sleep(_LOOK_S)
