"""A real Chromium that opens pages as users do, and writes down what they say and load. For tests and benchmarks.

Playwright drives the system's Chromium (Debian's package ``chromium``), not one that it would download.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
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
A4 = (595, 842)
"""In points."""

# What is drawn in each figure of a page: marks of data, not axes. Parallel coordinates are our own SVG.
MARKS = """() => [...document.querySelectorAll(".figure")].map((figure) => ({
  name: figure.getAttribute("aria-label") || figure.id,
  marks: figure.querySelectorAll(
    ".scatterlayer .js-line, .scatterlayer .point, .barlayer .point, .boxlayer .box, .heatmaplayer image, "
    + ".parallel .line").length,
}))"""

# Texts that stick out of their figure, and elements that make the page wider than its window, or its paper.
CUT = """() => [...document.querySelectorAll(".figure")].flatMap((figure) => {
  const frame = figure.getBoundingClientRect();
  return [...figure.querySelectorAll("text")].filter((text) => {
    const {left, right, top, bottom, width} = text.getBoundingClientRect();
    const inside = left > frame.left - 1 && right < frame.right + 1 && top > frame.top - 1 && bottom < frame.bottom + 1;
    return width && !inside;
  }).map((text) => `${figure.getAttribute("aria-label") || figure.id}: ${text.textContent}`);
})"""
WIDER = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"

# Titles of the figures that the dashboard has drawn, and how much of each.
PLOTS = """() => [...document.querySelectorAll(".js-plotly-plot")].map((plot) => [
  plot.querySelector(".gtitle")?.textContent ?? "",
  plot.querySelectorAll(".scatterlayer .js-line, .scatterlayer .point, .barlayer .point").length,
])"""


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


def wait_for_plots(visit: Visit, count: int) -> list[tuple[str, int]]:
    visit.page.wait_for_function(f"() => ({PLOTS})().filter(([, marks]) => marks).length >= {count}")
    return [(title, marks) for title, marks in visit.page.evaluate(PLOTS)]


def texts_beyond_the_margins(pdf: bytes) -> list[str]:
    """Returns the lines of a PDF of which something is nearer to the paper's edge than a printer's margin."""
    import pypdfium2

    beyond = []
    document = pypdfium2.PdfDocument(pdf)
    for page in document:
        width, height = page.get_size()
        assert (width, height) == pytest.approx(A4, abs=2)
        text = page.get_textpage()
        for at in range(text.count_rects()):
            left, bottom, right, top = text.get_rect(at)
            if left < 20 or right > width - 20 or bottom < 20 or top > height - 20:
                beyond.append(text.get_text_bounded(left, bottom, right, top))
        text.close()
        page.close()
    document.close()
    return beyond


@contextmanager
def serving(*arguments: object, port: int | None = None) -> Iterator[str]:
    """Runs a server until the end of the block, and yields its address, which it prints where no port is given."""
    words = [*map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watchdog = threading.Timer(180, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        if port is None:
            line = process.stdout.readline()
            found = re.match(r"http://127\.0\.0\.1:\d+", line)
            assert found, line
            yield found[0]
        else:
            while process.poll() is None:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        assert process.poll() is None, "the server has gone"
    finally:
        watchdog.cancel()
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
