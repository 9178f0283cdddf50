"""Those who look at what a rank prints: when they see which of its numbered lines."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import re
import shutil
import time
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Page

# What benchmarks/workers/console_rank.py prints.
PRINTED = re.compile(r"\[line (\d+) printed\]")
_TIMEOUT_S = 30.0
_BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
BROWSER_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_LOOK_S = 0.2
# Notes when each numbered line is drawn for the first time, wherever in the page that is.
_WATCH = """() => {
  window.seen = {};
  const look = (text) => {
    for (const [, number] of text.matchAll(/\\[line (\\d+) printed\\]/g)) {
      if (!(number in window.seen)) {
        window.seen[number] = null;
        requestAnimationFrame(() => { window.seen[number] = Date.now() / 1000; });
      }
    }
  };
  new MutationObserver((changes) => {
    for (const { type, target, addedNodes } of changes) {
      if (type === "characterData") look(target.data);
      for (const node of addedNodes) look(node.textContent);
    }
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


class Viewer(Protocol):
    """Somebody who looks at a run's console."""

    def seen_at(self, count: int, deadline: float) -> Mapping[int, float]:
        """When (Unix seconds) the lines 0 … `count` - 1 were seen; waits for them.

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

    def seen_at(self, count: int, deadline: float) -> Mapping[int, float]:
        seen: dict[int, float] = {}
        while len(seen) < count:
            if time.monotonic() >= deadline:
                raise RuntimeError(f"{len(seen)} of {count} lines were seen")
            if self._stream.readline().strip() != b"event: logs":
                continue
            found = self._ask(f"?since={self._newest}")
            now = time.time()
            self._newest = found["newest"]
            for line in found["lines"]:
                for number in PRINTED.findall(line["text"]):
                    seen.setdefault(int(number), now)
        return seen

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


class _BrowserViewer:
    """A page in a browser, in which the watching has begun."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def seen_at(self, count: int, deadline: float) -> Mapping[int, float]:
        while True:
            found: dict[str, float | None] = self._page.evaluate("window.seen")
            seen = {int(number): at for number, at in found.items() if at is not None}
            if len(seen) >= count:
                return seen
            if time.monotonic() >= deadline:
                raise RuntimeError(f"{len(seen)} of {count} lines were seen")
            time.sleep(_LOOK_S)


def browser() -> str | None:
    """The Chromium of this machine; None where there is none, or nothing to drive it with."""
    has_driver = importlib.util.find_spec("playwright") is not None
    return next((path for name in _BROWSERS if has_driver and (path := shutil.which(name))), None)


@contextlib.contextmanager
def in_browser(path: str, base: str, run: str, shown: str) -> Generator[Viewer]:
    """Somebody who has the run's console open in the browser at `path`, and sees the text `shown` there already."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(BROWSER_ARGUMENTS))
        with contextlib.closing(chromium):
            page = chromium.new_page(viewport={"width": 1400, "height": 900})
            page.goto(f"{base}/runs/{run}?tab=console")
            page.get_by_text(shown).first.wait_for(timeout=1e3 * _TIMEOUT_S)
            page.evaluate(_WATCH)
            yield _BrowserViewer(page)
