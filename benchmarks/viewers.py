"""Those who look at what a rank prints: when they see which of its numbered lines."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
from collections.abc import Generator
from typing import Any, Protocol
from urllib.parse import urlsplit

# What benchmarks/workers/console_rank.py prints.
PRINTED = re.compile(r"\[line (\d+) printed at ([\d.]+)\]")
_TIMEOUT_S = 30.0


class Viewer(Protocol):
    """Somebody who looks at a run's console."""

    def delays_s(self, count: int, deadline: float) -> list[float]:
        """Seconds from the print of each of `count` lines until it was seen; waits for them.

        Raises:
            RuntimeError: not all were seen by `deadline` (monotonic).
        """
        ...


class _HttpViewer:
    """Does what the page does: waits for notes in the stream, and asks for what has arrived since."""

    def __init__(self, stream: http.client.HTTPResponse, asking: http.client.HTTPConnection, run: str) -> None:
        self._stream = stream
        self._asking = asking
        self._path = f"/api/runs/{run}/logs"
        self._newest: int = self._ask("")["newest"]

    def delays_s(self, count: int, deadline: float) -> list[float]:
        delays: dict[int, float] = {}
        while len(delays) < count:
            if time.monotonic() >= deadline:
                raise RuntimeError(f"{len(delays)} of {count} lines were seen")
            if self._stream.readline().strip() != b"event: logs":
                continue
            found = self._ask(f"?since={self._newest}")
            seen_at = time.time()
            self._newest = found["newest"]
            for line in found["lines"]:
                for number, printed_at in PRINTED.findall(line["text"]):
                    delays.setdefault(int(number), seen_at - float(printed_at))
        return list(delays.values())

    def _ask(self, query: str) -> dict[str, Any]:
        self._asking.request("GET", self._path + query)
        with self._asking.getresponse() as response:
            answer: dict[str, Any] = json.load(response)
        return answer


@contextlib.contextmanager
def over_http(base: str, run: str) -> Generator[Viewer]:
    """Somebody who reads the run's console from the collector at the URL `base`, without a browser."""
    address = urlsplit(base).netloc
    streaming, asking = (http.client.HTTPConnection(address, timeout=_TIMEOUT_S) for _ in range(2))
    with contextlib.closing(streaming), contextlib.closing(asking):
        streaming.request("GET", f"/api/stream?run={run}")
        with streaming.getresponse() as stream:
            stream.readline()  # from here on nothing is missed
            yield _HttpViewer(stream, asking, run)
