"""The dashboard's pages as objects: what a person sees and does there, in the page's own test ids."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, expect
from tests.support.waiting import wait_until

# A hang's deadline, not a bound on speed: the tests' machine may be busy.
WAIT_MS = 60_000


@dataclass(frozen=True)
class RunsPage:
    """The list of runs at `/`."""

    page: Page
    url: str

    def open(self, query: str = "") -> RunsPage:
        self.page.goto(f"{self.url}/{query}")
        return self

    @property
    def rows(self) -> Locator:
        return self.page.get_by_test_id("run-row")

    def row(self, run_id: str) -> Locator:
        return self.page.locator(f'[data-testid="run-row"][data-run="{run_id}"]')

    def filter(self, text: str) -> None:
        self.page.get_by_test_id("runs-filter").fill(text)

    def enter(self, run_id: str) -> RunPage:
        self.row(run_id).get_by_role("link").click()
        return RunPage(self.page, self.url, run_id)

    @property
    def connection(self) -> Locator:
        return self.page.get_by_test_id("connection")


@dataclass(frozen=True)
class RunPage:
    """A run's page at `/runs/{id}`."""

    page: Page
    url: str
    run_id: str

    def open(self, query: str = "") -> RunPage:
        self.page.goto(f"{self.url}/runs/{self.run_id}{query}")
        expect(self.page.get_by_test_id("run-page")).to_be_visible(timeout=WAIT_MS)
        return self

    @property
    def cells(self) -> Locator:
        return self.page.get_by_test_id("rank-cell")

    def cell(self, rank: int) -> Locator:
        return self.page.locator(f'[data-testid="rank-cell"][data-rank="{rank}"]')

    def expect_rank(self, rank: int, state: str, timeout_ms: float = WAIT_MS) -> None:
        expect(self.cell(rank)).to_have_attribute("data-state", state, timeout=timeout_ms)

    @property
    def problems(self) -> Locator:
        return self.page.get_by_test_id("rank-problem")

    def chart(self, key: str) -> Chart:
        return Chart(self.page, self.page.locator(f'[data-testid="chart"][data-key="{key}"]'))

    def mode(self, mode: str) -> None:
        """ "mean" or "lines"."""
        self.page.locator(f'[data-testid="chart-mode"] [data-value="{mode}"]').click()

    def tab(self, name: str) -> None:
        self.page.get_by_test_id(f"tab-{name}").click()

    @property
    def connection(self) -> Locator:
        return self.page.get_by_test_id("connection")


@dataclass(frozen=True)
class Chart:
    """One key's chart."""

    page: Page
    card: Locator

    def points(self) -> int:
        """How many logged values the chart stands for; waits until it has loaded."""
        expect(self.card).to_have_attribute("data-points", re.compile(r"\d+"), timeout=WAIT_MS)
        return int(self.card.get_attribute("data-points") or 0)

    def expect_more_points_than(self, count: int) -> None:
        wait_until(lambda: self.points() > count, f"there are more than {count} points", timeout_s=WAIT_MS / 1000)

    def expect_drawn(self) -> None:
        """A canvas with ink in it: at least one pixel that is not transparent."""
        canvas = self.card.locator("canvas")
        expect(canvas).to_be_visible(timeout=WAIT_MS)
        has_ink = (
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 == 3 && v > 0)"
        )
        wait_until(lambda: bool(canvas.evaluate(has_ink)), "the canvas is drawn", timeout_s=WAIT_MS / 1000)

    def expect_tooltip(self, *texts: str) -> None:
        """While the mouse is over the middle of the plot, the tooltip says all of this.

        A chart that is drawn anew under a mouse that stands still has no tooltip until it moves.
        """
        shares = itertools.cycle((0.5, 0.51))

        def says_all() -> bool:
            self._to(next(shares))
            said = " ".join(self.card.locator(".chart-tooltip:visible").all_text_contents())
            return all(text in said for text in texts)

        wait_until(says_all, f"a tooltip has {texts}", timeout_s=WAIT_MS / 1000)

    def drag(self, *shares: float) -> None:
        """Zooms by a drag over these shares of the plot's width."""
        self._to(shares[0])
        self.page.mouse.down()
        for share in shares[1:]:
            self._to(share)
        self.page.mouse.up()

    def _to(self, share: float) -> None:
        """Moves the mouse to this share of the plot's width, once the plot has come to rest there."""
        over = self.card.locator(".u-over")
        width, height = over.evaluate("over => [over.clientWidth, over.clientHeight]")
        over.hover(position={"x": width * share, "y": height / 2})
