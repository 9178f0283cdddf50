"""The console tab as an object: what a person sees and does there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from playwright.sync_api import expect
from tests.browser.pages import WAIT_MS
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


@dataclass(frozen=True)
class ConsolePage:
    """The console tab of a run's page."""

    page: Page
    url: str
    run_id: str

    def open(self, query: str = "") -> ConsolePage:
        self.page.goto(f"{self.url}/runs/{self.run_id}?tab=console{query}")
        expect(self.page.get_by_test_id("console")).to_be_visible()
        return self

    def part(self, name: str) -> Locator:
        """A part by its test id, less `log-`: error, total, search, only, next, end, …"""
        return self.page.get_by_test_id(f"log-{name}")

    @property
    def rows(self) -> Locator:
        return self.page.get_by_test_id("log-row")

    def row(self, number: int) -> Locator:
        return self.page.locator(f'[data-testid="log-row"][data-number="{number}"]')

    def with_text(self, text: str) -> Locator:
        return self.rows.filter(has_text=text)

    def expect_in_sight(self, row: Locator) -> None:
        """Within the window of the lines, and not only in the document around it.

        A row that the list has replaced between being found and being measured is in no window any more.
        """
        inside = """rows => rows.length === 1 && rows.every(row => {
            if (!row.isConnected) return false;
            const [a, b] = [row, row.closest('.log')].map(e => e.getBoundingClientRect());
            return a.top >= b.top - 1 && a.bottom <= b.bottom + 1; })"""
        wait_until(lambda: row.evaluate_all(inside), f"{row} is in sight", timeout_s=WAIT_MS / 1000)
        expect(row).to_be_in_viewport()

    def search(self, text: str) -> None:
        self.part("search").fill(text)
        self.part("search").press("Enter")

    def scroll_to(self, share: float) -> None:
        """Drags the scroll bar to this share of its way."""
        self.page.get_by_test_id("log").evaluate(
            "(log, share) => { log.scrollTop = share * (log.scrollHeight - log.clientHeight); }", share
        )

    def wheel(self, pixels: int) -> None:
        self.page.get_by_test_id("log").hover()
        self.page.mouse.wheel(0, pixels)
