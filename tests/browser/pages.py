"""The dashboard's pages as objects: what a person sees and does there, in the page's own test ids."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_MS = 30_000


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

    def expect_more_points_than(self, count: int, timeout_ms: float = WAIT_MS) -> None:
        self._until(lambda: self.points() > count, timeout_ms, f"more than {count} points")

    def expect_drawn(self) -> None:
        """A canvas with ink in it: at least one pixel that is not transparent."""
        canvas = self.card.locator("canvas")
        expect(canvas).to_be_visible(timeout=WAIT_MS)
        has_ink = (
            "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v, i) => i % 4 == 3 && v > 0)"
        )
        self._until(lambda: bool(canvas.evaluate(has_ink)), WAIT_MS, "a drawn canvas")

    def hover(self, x: float = 0.5) -> Locator:
        """Moves the mouse to this share of the plot's width; gives the tooltip."""
        left, top, width, height = self._plot_box()
        self.page.mouse.move(left + width * x, top + height / 2)
        return self.card.locator(".chart-tooltip")

    def drag(self, start: float, end: float) -> None:
        """Zooms by a drag between two shares of the plot's width."""
        left, top, width, height = self._plot_box()
        self.page.mouse.move(left + width * start, top + height / 2)
        self.page.mouse.down()
        self.page.mouse.move(left + width * end, top + height / 2, steps=8)
        self.page.mouse.up()

    def _plot_box(self) -> tuple[float, float, float, float]:
        over = self.card.locator(".u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        assert box is not None, "the plot is not on the page"
        return box["x"], box["y"], box["width"], box["height"]

    def _until(self, holds: Callable[[], bool], timeout_ms: float, wanted: str) -> None:
        waited_ms = 0
        while not holds():
            assert waited_ms < timeout_ms, f"not within {timeout_ms / 1000} s: {wanted}"
            self.page.wait_for_timeout(100)
            waited_ms += 100
