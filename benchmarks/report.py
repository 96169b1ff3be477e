"""How soon a report is written and opened, and what the dashboard sends, of large studies.

    python benchmarks/report.py

Makes a study of many trials (real journal, made-up curves: ``tests/made_study.py``), runs ``search.report`` on it as a
command, and opens the page in Chromium until its last figure is drawn. Then serves a smaller one with
``search.dashboard`` and looks at it for a while: what each request carries and takes, and how long at a stretch the
page cannot be used (long tasks, in Chromium's terms). Optuna's own dashboard on the same journal, without our figures,
is the measure of the latter.

Needs the ``test`` extra and a Chromium. Times are by the clock, so the machine should have nothing else to do; the
processor time of the page's main thread, which does nearly all of the work, depends less on neighbours.
"""

from __future__ import annotations

import argparse
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from paths import use_tests

use_tests()

LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => list.getEntries().forEach((task) => longTasks.push([task.startTime, task.duration])))
  .observe({type: "longtask", buffered: true});
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000, help="of the study that is reported")
    parser.add_argument("--dashboard-trials", type=int, default=500, help="of the study that the dashboard shows")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=5, help="times that the page is opened; the median counts")
    parser.add_argument("--watch", type=float, default=35.0, help="seconds that a dashboard is looked at")
    arguments = parser.parse_args()

    from browser import chromium, what_is_missing

    if missing := what_is_missing():
        parser.error(missing)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        large = make_study(Path(folder) / "large", arguments.trials, arguments.epochs)
        write_and_open(browser, large, arguments.repeat)
        small = make_study(Path(folder) / "small", arguments.dashboard_trials, arguments.epochs)
        command = [sys.executable, "-m", "search.dashboard", str(small), "--port", "0"]
        watch(browser, "search.dashboard", command, None, arguments.watch)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = str(Path(sys.executable).with_name("optuna-dashboard"))
        command = [program, str(small / "journal.log"), "--port", str(port)]
        watch(browser, "optuna-dashboard", command, port, arguments.watch)


def make_study(folder: Path, trials: int, epochs: int) -> Path:
    from made_study import MadeStudy, make_config

    made = MadeStudy(folder, make_config(trials=trials, epochs=epochs))
    made.train(trials)
    made.conclude()
    made.close()
    print(f"{trials} trials of up to {epochs} epochs, journal {(folder / 'journal.log').stat().st_size / 1e6:.1f} MB")
    return folder


def write_and_open(browser: Any, folder: Path, repeat: int) -> None:
    from browser import Visit

    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "search.report", str(folder)], check=True, stdout=subprocess.DEVNULL)
    written = time.perf_counter() - begun
    page = folder / "report.html"
    print(f"  search.report: {written:.1f} s, {page.stat().st_size / 1e6:.2f} MB")
    seconds, processor = [], []
    for _ in range(repeat):
        with Visit(browser) as visit:
            processor_seconds = visit.throughput()
            begun = time.perf_counter()
            visit.page.goto(page.as_uri(), wait_until="commit")
            visit.wait_until_drawn()
            seconds.append(time.perf_counter() - begun)
            processor.append(processor_seconds())
            figures = visit.page.locator(".figure").count()
            paint = visit.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1e3
            assert not visit.said, visit.said
    print(f"  opened until all {figures} figures are drawn: median {median(seconds):.2f} s of {repeat}")
    print(f"    {min(seconds):.2f} to {max(seconds):.2f} s; text after {paint:.2f} s, the last time")
    print(f"    {median(processor):.2f} s of processor time")


def watch(browser: Any, name: str, command: list[str], port: int | None, seconds: float) -> None:
    from browser import Visit

    with serving(command, port) as base, Visit(browser) as visit:
        asked: list[tuple[str, int, float]] = []

        def note(request: Any) -> None:
            took = request.timing["responseEnd"]
            asked.append((request.url.removeprefix(base), request.sizes()["responseBodySize"], took))

        visit.page.on("requestfinished", note)
        visit.page.add_init_script(LONG_TASKS)
        begun = time.perf_counter()
        visit.page.goto(f"{base}/dashboard/studies/0")
        visit.page.locator(".js-plotly-plot .main-svg").first.wait_for()
        print(f"  {name}: first figure after {time.perf_counter() - begun:.1f} s")
        visit.page.wait_for_timeout(1000 * seconds)
        for address, size, took in asked:
            print(f"    {address:45s} {size / 1e3:9.1f} kB {took:7.0f} ms")
        later = [took for at, took in visit.page.evaluate("longTasks") if at > 8000]
        print(f"    busy at a stretch, after the first 8 s: {', '.join(f'{took:.0f}' for took in later) or 'never'} ms")


@contextmanager
def serving(command: list[str], port: int | None) -> Iterator[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            if port is None:
                assert process.stdout is not None
                found = re.match(r"http://[^/]*", process.stdout.readline())
                assert found, "the dashboard did not start"
                yield found[0]
            else:
                while process.poll() is None:
                    with socket.socket() as client:
                        if client.connect_ex(("127.0.0.1", port)) == 0:
                            break
                    time.sleep(0.1)
                yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
