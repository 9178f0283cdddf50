"""From the moment at which a rank's main thread stands still until its run's page says `stalled` and shows its stack,
for steps of 100 ms.

Each rank is a run with a page of its own, which is open all the while. Some of them wait for ever in Python; in the
others C code holds the interpreter, so that neither beats come nor answers.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import viewers
from benchmarks.figures import Figure, Measured, Options, at_most
from benchmarks.processes import Worker, running_collector, temporary_home
from benchmarks.samples import spread
from benchmarks.workers.stepping_rank import FILE

if TYPE_CHECKING:
    from playwright.sync_api import Page

_STEP_S = 0.1
_BOUND_S = 15.0
_DEADLINE_S = 90.0
# It has shown its pace by then.
_TRAINS_S = 6.0
_PAUSE_S = (0.0, 1.0)
_LOOK_S = 0.1
# When the page shows for the first time that the run is stalled, and where its rank stands.
_WATCH = """(file) => {
  window.seen = {};
  const groups = () => [...document.querySelectorAll("#stacks .stack-group")];
  const looked_for = {
    stalled: () => document.querySelector("[data-testid=verdict][data-state=stalled]"),
    stack: () => groups().some((group) => group.textContent.includes(file)),
  };
  const look = () => {
    for (const [what, is_there] of Object.entries(looked_for)) {
      if (!(what in window.seen) && is_there()) {
        window.seen[what] = null;
        requestAnimationFrame(() => { window.seen[what] = Date.now() / 1000; });
      }
    }
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""

# Which of `stalled` and `stack` a viewer has seen, and when (Unix seconds).
Look = Callable[[], Mapping[str, float]]


def measure(options: Options) -> Measured:
    """The slowest of all ranks: of those that wait, and of those that hold the interpreter."""
    # Who holds the interpreter takes a core too: one is enough.
    words = ["stick"] * options.pick(4, 1) + ["hold"]
    browser = viewers.browser()
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(temporary_home())
        base = stack.enter_context(running_collector(home)).endpoint.http
        runs = [f"stall-{number}" for number in range(len(words))]
        ranks = [
            stack.enter_context(Worker("stepping_rank", {"run": run, "step_s": _STEP_S}, home=home)) for run in runs
        ]
        for rank in ranks:
            rank.hear(_DEADLINE_S)
        begun = time.monotonic()
        looks = stack.enter_context(_pages(browser, base, runs)) if browser else [_asking(base, run) for run in runs]
        time.sleep(max(0.0, begun + _TRAINS_S - time.monotonic()))
        pause = random.Random(0)
        stuck_at: list[float] = []
        for rank, word in zip(ranks, words, strict=True):
            time.sleep(pause.uniform(*_PAUSE_S))
            rank.say(word)
            stuck_at.append(rank.hear(_DEADLINE_S)["stuck_at"])
        try:
            seen = _await(looks, time.monotonic() + _DEADLINE_S)
        except RuntimeError as error:
            stacks = {run: _get(f"{base}/api/runs/{run}/stacks?threads=false")["text"] for run in runs}
            raise RuntimeError(f"{error}; {stacks}") from None
        for rank in ranks:
            rank.kill()
    who = "the page, in Chromium" if browser else "one who reads over HTTP"
    delays = [
        {what: at - begun_at for what, at in found.items()} for found, begun_at in zip(seen, stuck_at, strict=True)
    ]
    whole = spread([max(delay.values()) for delay in delays])
    stalled = spread([delay["stalled"] for delay in delays])
    figure = Figure(
        f"from a stuck main thread to `stalled` with its stack, for {who}, slowest",
        whole.max,
        "s",
        at_most(_BOUND_S),
        note=f"median {whole.median:.1f} s, `stalled` {stalled.median:.1f} s; {whole.count} ranks,"
        f" {words.count('hold')} of them hold the interpreter; steps of {1e3 * _STEP_S:.0f} ms",
    )
    return Measured([figure], {"words": words, "delays_s": delays})


def _await(looks: Sequence[Look], deadline: float) -> list[Mapping[str, float]]:
    """What all have seen, once each has seen everything."""
    while True:
        seen = [look() for look in looks]
        if all({"stalled", "stack"} <= set(found) for found in seen):
            return seen
        if time.monotonic() >= deadline:
            raise RuntimeError(f"not all was seen: {seen}")
        time.sleep(_LOOK_S)


@contextlib.contextmanager
def _pages(path: str, base: str, runs: Sequence[str]) -> Generator[list[Look]]:
    """A page for each run, on the tab of its health, in the browser at `path`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(viewers.BROWSER_ARGUMENTS))
        with contextlib.closing(chromium):
            yield [_watched(chromium.new_page(), f"{base}/runs/{run}?tab=health") for run in runs]


def _watched(page: Page, url: str) -> Look:
    page.goto(url)
    page.locator("#stacks").wait_for(timeout=1e3 * _DEADLINE_S)
    page.evaluate(_WATCH, FILE)
    return lambda: {what: at for what, at in page.evaluate("window.seen").items() if at is not None}


def _asking(base: str, run: str) -> Look:
    """Without a browser: who asks the API again and again."""
    seen: dict[str, float] = {}

    def look() -> Mapping[str, float]:
        if any(row["state"] == "stalled" for row in _get(f"{base}/api/runs/{run}/ranks")["ranks"]):
            seen.setdefault("stalled", time.time())
        if any(FILE in group["text"] for group in _get(f"{base}/api/runs/{run}/stacks")["groups"]):
            seen.setdefault("stack", time.time())
        return seen

    return look


def _get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as response:
        found: dict[str, Any] = json.load(response)
    return found
