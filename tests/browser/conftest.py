"""A real Chromium, and pages that fail their test when a script fails, a policy is broken, or the network is left."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright
from tests.browser.double import CollectorDouble
from tests.browser.pages import WAIT_MS

if TYPE_CHECKING:
    from collections.abc import Iterator

BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# A hang's deadline, not a bound on speed: the tests' machine may be busy.
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium. One per module: its event loop must not be there while other tests run theirs."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.fail(
            "the browser tests need Chromium: apt-get install -y --no-install-recommends chromium", pytrace=False
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A fresh profile: no preference of another test's."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light")
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that has thrown nothing, broken no content security policy, and asked only loopback for anything."""
    wrong: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            wrong.append(message.text)

    def on_request(request: Request) -> None:
        if urlsplit(request.url).hostname != "127.0.0.1":
            wrong.append(f"left the machine: {request.url}")

    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(f"{error.name}: {error.message}\n{error.stack}"))
    page.on("console", on_console)
    page.on("request", on_request)
    yield page
    assert wrong == []


@pytest.fixture
def double() -> Iterator[CollectorDouble]:
    """A collector that says what the test puts into it."""
    with CollectorDouble() as double:
        yield double
