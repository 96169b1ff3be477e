"""A real Chromium that opens pages as users do, and writes down what they say and load. For tests and benchmarks.

Playwright drives the system's Chromium (Debian's package ``chromium``), not one that it would download.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
REQUIRE = "REQUIRE_BROWSER"
"""Where this variable is set, as .ci/run does, tests that find no Chromium fail instead of being skipped."""
FLAGS = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebGL by the processor, for the dashboard's own figures: test machines have no graphics card
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def what_is_missing() -> str:
    """Returns what there is to install before a page can be opened; '' for nothing."""
    if find_chromium() is None:
        return f"none of {', '.join(NAMES)} is installed: apt-get install chromium"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed: pip install 'bottleneck-search[test]'"
    return ""


def require(missing: str) -> None:
    """Skips the test where something is missing; where a browser is required, fails it."""
    if missing and os.environ.get(REQUIRE, "") not in ("", "0"):
        pytest.fail(f"{REQUIRE} is set, and {missing}", pytrace=False)
    if missing:
        pytest.skip(missing)


def find_chromium() -> str | None:
    """Returns the path of the system's Chromium."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Runs a Chromium without a window, with a new and empty profile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=[*FLAGS], chromium_sandbox=False)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page in a profile of its own.

    Attributes:
        page: Playwright's page.
        said: What it wrote to the console, by kind, and errors that nobody caught.
        loaded: The addresses that it asked for, itself first.
    """

    def __init__(self, browser: Browser, address: str = "", **context: Any) -> None:
        self._context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
        self._context.set_default_timeout(60_000)
        self.page: Page = self._context.new_page()
        self.said: list[str] = []
        self.loaded: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("requestfailed", lambda request: self.said.append(f"error: {request.url} {request.failure}"))
        self.page.on("request", lambda request: self.loaded.append(request.url))
        if address:
            self.page.goto(address)

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    @property
    def errors(self) -> list[str]:
        """What of ``said`` is an error."""
        return [line for line in self.said if line.startswith("error:")]

    def wait_until_drawn(self) -> None:
        """Waits for the last figure of one of our own pages, which says so."""
        self.page.wait_for_selector("body[data-drawn]", state="attached")

    def throughput(self) -> Callable[[], float]:
        """Returns what tells how many seconds a processor has worked for the page's main thread, from now on.

        Unlike the time by the clock this depends little on what else the machine does.
        """
        session = self._context.new_cdp_session(self.page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})

        def read() -> float:
            metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
            return float(metrics["TaskDuration"])

        return read
