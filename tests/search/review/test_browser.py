"""Report, evaluation and dashboard in a real browser: all is drawn, from nowhere else, and nothing complains."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import (
    CUT,
    MARKS,
    PHONE,
    REQUIRE,
    WIDER,
    Visit,
    chromium,
    require,
    serving,
    texts_beyond_the_margins,
    wait_for_plots,
    what_is_missing,
)
from commands import command, succeed
from conftest import build_store
from made_study import MadeStudy, make_config
from PIL import Image
from tiny_study import STUDY, table

from features.store.reader import FeatureStore
from heads.evaluation.report import confusion_figure
from heads.html import document
from heads.metrics.classification import measure
from search.record.storage import JOURNAL
from search.record.study_record import read_record
from search.review.parameter_figures import importance, parallel_coordinates
from search.setup.config import REPORT_FILE
from search.trials.ranking import ranking

PINNED = ("value and size", "learning curves", "what ended when")
SEARCH = ("--trials", 12, "--epochs", 15, "--seed", 7, "--pruner", "halving", "--folds", "0")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def browser() -> Iterator[Any]:
    require(what_is_missing())
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    study = MadeStudy(tmp_path_factory.mktemp("made") / "study", make_config(trials=40))
    study.train(40)
    study.conclude(classes=("A", "B"))
    folder = study.close()
    succeed("search.report", folder)
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> tuple[Any, ...]:
    """Arguments of a search over a small store."""
    folder = tmp_path_factory.mktemp("store")
    store = build_store(folder / "store.h5", rows=240, views=("identity", "flip"), shape=(3, 3, 8))
    (folder / "tiny.toml").write_text(STUDY)
    return ("--features", store, "--study", folder / "tiny.toml", *SEARCH)


@pytest.fixture(scope="module")
def searched(options, tmp_path_factory) -> Path:
    """The directory of a study that was really searched, without anybody looking."""
    folder = tmp_path_factory.mktemp("searched") / "study"
    succeed("search.run", *options, "--out", folder)
    return folder


@pytest.fixture(scope="module", params=["made", "searched"])
def study(request) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    if not (folder / REPORT_FILE).exists():
        succeed("search.report", folder)
    return folder


@pytest.fixture(scope="module")
def opened(browser, study) -> Iterator[tuple[Visit, Path]]:
    """A report in a browser without a network, drawn, and its study."""
    with Visit(browser, address(study), offline=True) as visit:
        visit.wait_until_drawn()
        yield visit, study


def address(folder: Path) -> str:
    return (folder / REPORT_FILE).as_uri()


def test_every_figure_of_a_report_is_drawn_and_nothing_is_loaded_or_said(opened):
    visit, study = opened
    drawn = visit.page.evaluate(MARKS)
    assert len(drawn) >= 10
    assert not [figure["name"] for figure in drawn if not figure["marks"]]
    assert visit.page.evaluate(CUT) == []
    assert visit.said == []
    assert visit.loaded == [address(study)]


def test_the_first_row_of_the_leaderboard_is_the_winner(opened):
    visit, study = opened
    best = json.loads((study / "summary.json").read_text())["best"]
    board = visit.page.locator("section", has=visit.page.get_by_role("heading", name="Leaderboard"))
    head = board.locator("thead th").all_inner_texts()
    first = dict(zip(head, board.locator("tbody tr").first.locator("td").all_inner_texts(), strict=True))
    assert first["trial"] == str(best["number"])
    assert first["accuracy"] == f"{best['value']:.4f}"
    assert first["loss"] == f"{best['validation_loss']:.4f}"
    assert first["parameters"] == f"{best['parameters']:,}"


def test_a_report_fits_a_phone(browser, study):
    with Visit(browser, address(study), **PHONE) as visit:
        visit.wait_until_drawn()
        wide, window = visit.page.evaluate(WIDER)
        assert wide == window == 390
        assert visit.page.evaluate(CUT) == []
        first = visit.page.locator("table.wordy tbody tr").first
        assert first.locator("td").last.bounding_box()["width"] > 300  # the words have the width to themselves
        assert visit.said == []


def test_a_leaderboard_with_every_column_fits_a_screen(browser, tmp_path):
    page, path = document.Document("t", "s"), tmp_path / "board.html"
    head = ("", "trial", "repeated", "balanced accuracy", "loss", "epochs", "best epoch", "parameters", "head")
    row = (
        "12",
        "345",
        "16.25%\u00a0±\u00a01.77%",
        "0.2250",
        "3.3637",
        "100",
        "100",
        "1,012,520",
        "1x1 convolution, relu; " * 9,
    )
    page.add("Leaderboard", document.table(head, [row], wide=True))
    path.write_text(page.html(), encoding="utf-8")
    with Visit(browser, path.as_uri(), viewport={"width": 1200, "height": 800}) as visit:
        board = visit.page.locator(".scroll")
        assert board.evaluate("one => one.scrollWidth - one.clientWidth") == 0


@pytest.mark.parametrize("kind", ["marked_diagonal", "named_rows", "wide"])
def test_long_names_are_broken_on_paper_and_no_column_is_cut_off(browser, tmp_path, kind):
    """A browser makes what is too wide for paper smaller, with all of the page, and cuts off the rest."""
    page, path = document.Document("t", "s"), tmp_path / "names.html"
    names = [f"{'class_without_a_space_' * 4}{number}" for number in range(10)]
    rows = {
        "marked_diagonal": [(name, *(f"{7000 + at}" for at in range(10))) for name in names],
        "named_rows": [(name, *["-"] * 9, "7009") for name in names],
        "wide": [("7009", *["7009"] * 9, f"head: {name * 2}") for name in names],
    }
    head = ("true", *names) if kind == "marked_diagonal" else ("", *map(str, range(10)))
    page.add("Table", document.prose("word " * 50), document.table(head, rows[kind], **{kind: True}))
    path.write_text(page.html(), encoding="utf-8")
    with Visit(browser, path.as_uri(), viewport={"width": 700, "height": 900}) as visit:
        visit.page.emulate_media(media="print")
        assert len(set(visit.page.evaluate(WIDER))) == 1
        widths = visit.page.locator("td", has_text="7009").evaluate_all("all => all.map((one) => one.clientWidth)")
        assert min(widths) >= 25  # a number stands in one line
        if kind == "wide":
            assert visit.page.locator("td", has_text="head: ").first.bounding_box()["width"] > 600


def test_a_report_fits_the_paper_that_it_is_printed_on(browser, study):
    with Visit(browser, address(study)) as visit:
        visit.wait_until_drawn()
        assert texts_beyond_the_margins(visit.page.pdf(format="A4")) == []
        after = visit.page.evaluate("() => document.querySelector('.figure .main-svg').getBoundingClientRect().width")
        assert after == visit.page.locator(".figure").first.bounding_box()["width"]  # as wide as before
        # without the event that a browser sends before it prints, a figure is drawn for the screen and scaled
        visit.page.emulate_media(media="print")
        visit.page.set_viewport_size({"width": 680, "height": 900})
        assert visit.page.evaluate(CUT) == []
        assert len(set(visit.page.evaluate(WIDER))) == 1
        assert visit.said == []


def test_ranges_of_parallel_coordinates_can_be_picked(browser, made):
    ranked = ranking(read_record(made).study)
    with Visit(browser, address(made)) as visit:
        visit.wait_until_drawn()
        drawing = visit.page.locator(".parallel")
        drawing.scroll_into_view_if_needed()
        box = drawing.locator(".grip").first.bounding_box()
        x, top, middle = box["x"] + box["width"] / 2, box["y"] + 1, box["y"] + box["height"] / 2
        visit.page.mouse.move(x, top)
        visit.page.mouse.down()
        visit.page.mouse.move(x, middle, steps=3)
        visit.page.mouse.up()
        kept = drawing.locator(".line:not(.off) title").all_text_contents()
        assert kept[-1].startswith(f"trial {ranked[0].number}:")  # the best is drawn over all others
        values = [trial.value for trial in ranked]
        upper = [t for t in ranked if t.value > (min(values) + max(values)) / 2 + 0.005]
        assert 0 < len(upper) < len(ranked)
        assert {f"trial {trial.number}" for trial in upper} <= {title.split(":")[0] for title in kept}
        assert len(kept) < len(ranked)
        visit.page.mouse.click(x, middle)
        assert drawing.locator(".line.off").count() == 0
        assert visit.said == []


@pytest.mark.parametrize("classes", [4, 14])
def test_figures_of_long_names_fit_a_phone(browser, made, tmp_path, classes):
    names = [f"a long name of a class, which goes on and on, {number}" for number in range(classes)]
    labels = np.arange(10 * classes) % classes
    chances = np.random.default_rng(0).dirichlet(np.ones(classes), len(labels)).astype(np.float32)
    matrix = confusion_figure(measure(chances, labels, tuple(names)), names)
    page, path = document.Document("t", "s"), tmp_path / "page.html"
    page.lead(page.figure(matrix, "matrix", wide=classes > 10))
    page.lead(page.figure(importance({"all 40 trials": dict.fromkeys(names[:4], 0.25)}), "importance"))
    together = parallel_coordinates(ranking(read_record(made).study), "balanced_accuracy")
    page.lead(page.figure(together, "together", wide=True))
    path.write_text(page.html(), encoding="utf-8")
    with Visit(browser, path.as_uri(), **PHONE) as visit:
        visit.wait_until_drawn()
        assert visit.page.evaluate(CUT) == []
        assert visit.page.evaluate(WIDER) == [390, 390]
        cells = visit.page.locator("#figure-0 .heatmaplayer image").bounding_box()
        assert cells["width"] > 12 * classes


def test_a_hostile_name_is_shown_and_not_run(browser, tmp_path):
    run_me = "document.body.id='run'"
    study = MadeStudy(tmp_path / "study", make_config(name=f"</title><script>{run_me}</script>"))
    study.train(12, reason=f"<script>{run_me}</script>")
    study.conclude(classes=(f'<img src=x onerror="{run_me}">', "B"))
    succeed("search.report", study.close())
    with Visit(browser, address(tmp_path / "study")) as visit:
        visit.wait_until_drawn()
        assert visit.page.evaluate("document.body.id") == ""
        assert run_me in visit.page.inner_text("h1")
        assert visit.said == []
        assert len(visit.loaded) == 1


def test_a_figure_that_cannot_be_drawn_is_told_to_the_console_and_holds_up_no_other(browser, made, tmp_path):
    page = (made / REPORT_FILE).read_text(encoding="utf-8")
    assert page.count('id="figure-0"') == 1
    (tmp_path / REPORT_FILE).write_text(page.replace('id="figure-0"', 'id="another"'))
    with Visit(browser, address(tmp_path)) as visit:
        visit.wait_until_drawn()
        assert [bool(figure["marks"]) for figure in visit.page.evaluate(MARKS)] == [
            False,
            *[True] * (page.count('class="figure"') - 1),
        ]
        assert len(visit.errors) == 1
        assert "figure 0" in visit.errors[0]


def test_what_our_scripts_take_of_plotlys_insides_is_there(browser, made):
    """The contract of ``heads/html/files/plotly_internals.js``: what fails here was changed by an upgrade of Plotly."""
    with Visit(browser, address(made)) as visit:
        visit.wait_until_drawn()
        first = visit.page.locator(".figure").first
        box = first.bounding_box()
        found = first.evaluate("""(figure) => {
            const {drawings, width, height} = markDrawing(figure);
            const inside = [...figure.querySelectorAll("svg")].filter((svg) => !svg.closest(".drawing"));
            return {layers: drawings.length, width, height, strays: inside.length,
              frames: figure.querySelectorAll(".drawing-box .drawing-frame .drawing").length};
        }""")
        assert found["layers"] == found["frames"] > 0, "an SVG of a drawing is not in .svg-container in .plot-container"
        assert found["strays"] == 0, "a drawing has an SVG that is no .main-svg: it would not be scaled on paper"
        assert (found["width"], found["height"]) == (box["width"], box["height"]), (
            ".main-svg has not the drawing's size"
        )
        again = first.evaluate("""async (figure) => {
            let said = 0;
            figure.on("plotly_afterplot", () => { said += 1; });
            await Plotly.relayout(figure, {width: 333});
            const shape = getComputedStyle(figure).getPropertyValue("--shape").trim();
            return {said, shape, ...markDrawing(figure)};
        }""")
        assert again["said"] > 0, "Plotly does not say plotly_afterplot"
        assert again["width"] == 333, "Plotly.relayout does not set the width of .main-svg"
        assert again["shape"] == f"333 / {again['height']}"
        assert visit.said == []


@pytest.mark.parametrize("name", ["plot-container", "svg-container", "main-svg"])
def test_a_plotly_that_names_its_parts_otherwise_is_told_and_still_draws(browser, made, tmp_path, name):
    page = (made / REPORT_FILE).read_text(encoding="utf-8")
    assert f'find(".{name}")' in page
    (tmp_path / REPORT_FILE).write_text(page.replace(f'find(".{name}")', 'find(".renamed")'))
    with Visit(browser, address(tmp_path)) as visit:
        visit.wait_until_drawn()
        assert all(figure["marks"] for figure in visit.page.evaluate(MARKS))
        assert len(visit.errors) == page.count('class="figure"') - 1  # parallel coordinates are our own
        assert all("draws without .renamed: see plotly_internals.js" in line for line in visit.errors)


def test_an_evaluation_is_drawn(browser, searched, tmp_path):
    """Of a store that the head has never seen, so that there are mistakes to show."""
    store = FeatureStore(build_store(tmp_path / "other.h5", rows=24, shape=(3, 3, 8), seed=1))
    for path, size in zip(store.header.paths, store.header.sizes, strict=True):
        picture = tmp_path / "scans" / path
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (96, 72), 90).save(picture)
        picture.write_bytes(picture.read_bytes().ljust(size, b"\0"))  # the store knows files by their size
    best = json.loads((searched / "summary.json").read_text())["best"]["number"]
    head = searched / "heads" / f"trial-{best}.hdf5"
    succeed("heads.evaluate", head, store.path, "--report", tmp_path / "page", "--images", tmp_path / "scans")
    page = (tmp_path / "page" / "index.html").as_uri()
    with Visit(browser, page, offline=True) as visit:
        visit.wait_until_drawn()
        assert [figure["marks"] > 0 for figure in visit.page.evaluate(MARKS)] == [True] * 3
        assert visit.page.evaluate(CUT) == []
        shown = visit.page.evaluate("() => [...document.images].map((image) => image.naturalWidth)")
        assert shown
        assert min(shown) > 0
        assert texts_beyond_the_margins(visit.page.pdf(format="A4")) == []
        assert visit.said == []
        assert [one for one in visit.loaded if not one.startswith("data:")] == [page]
    with Visit(browser, page, **PHONE) as visit:
        visit.wait_until_drawn()
        assert visit.page.evaluate(CUT) == []
        assert visit.page.evaluate(WIDER) == [390, 390]


def dashboard_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "search.dashboard", str(folder), "--port", "0"]


@pytest.fixture(scope="module")
def shown(searched) -> Iterator[tuple[Path, str]]:
    """A study directory and the address of our dashboard on it; whatever was looked at, the record is as it was."""
    pytest.importorskip("optuna_dashboard")
    before = (searched / JOURNAL).read_bytes()
    with serving(*dashboard_command(searched)) as base:
        yield searched, base
    assert (searched / JOURNAL).read_bytes() == before


def test_the_dashboard_shows_the_study_with_our_figures(browser, shown):
    _, base = shown
    with Visit(browser, f"{base}/dashboard/studies/0") as visit:
        plots = wait_for_plots(visit, 5)
        assert {title for title, marks in plots if title and marks} == set(PINNED)
        assert all(marks for _, marks in plots)
        assert len(plots) >= 6  # history, importance, intermediate values and so on are its own
        assert visit.errors == []
        assert all(one.startswith(base) for one in visit.loaded)


def test_the_dashboard_shows_the_note(browser, shown):
    folder, base = shown
    best = json.loads((folder / "summary.json").read_text())["best"]
    with Visit(browser, f"{base}/dashboard/studies/0/note") as visit:
        visit.page.get_by_text("12 of 12 trials, finished.").wait_for()
        first = visit.page.locator("table tbody tr").first.locator("td").all_inner_texts()
        assert first[:2] == [str(best["number"]), f"{best['value']:.4f}"]
        assert first[3] == f"{best['parameters']:,}"
        assert visit.errors == []


def test_artifacts_of_the_best_trial_open_and_are_what_the_study_has(browser, shown):
    folder, base = shown
    best = json.loads((folder / "summary.json").read_text())["best"]["number"]
    with Visit(browser, f"{base}/dashboard/studies/0/trials?numbers={best}") as visit:
        links = visit.page.get_by_label("download artifact")
        links.first.wait_for()
        visit.page.get_by_role("img", name="learning-curve.svg").wait_for()
        visit.page.wait_for_function(
            "() => [...document.images].every((image) => image.complete && image.naturalWidth)"
        )
        got = {}
        for link in links.all():
            with visit.page.expect_download() as download:
                link.click()
            got[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
        assert {f"trial-{best}.hdf5", "learning-curve.svg", "confusion-test.svg"} <= got.keys()
        assert got[f"trial-{best}.hdf5"] == (folder / "heads" / f"trial-{best}.hdf5").read_bytes()
        for name in ("learning-curve.svg", "confusion-test.svg"):
            assert ElementTree.fromstring(got[name]).tag.endswith("svg")
        assert f"trial {best}, validation accuracy".encode() in got["learning-curve.svg"]
        wide, window = visit.page.evaluate(WIDER)
        assert wide <= window + 40  # long attributes are shown in short
        assert visit.errors == []


def test_optunas_own_dashboard_opens_the_journal(browser, searched):
    program = shutil.which("optuna-dashboard", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("optuna-dashboard is not installed")
    before = (searched / JOURNAL).read_bytes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        serving(program, searched / JOURNAL, "--port", port, port=port) as base,
        Visit(browser, f"{base}/dashboard") as visit,
    ):
        visit.page.get_by_text("tiny").first.click()
        assert len(wait_for_plots(visit, 3)) >= 3
        assert "/dashboard/studies/0" in visit.page.url
        assert visit.errors == []
        assert all(one.startswith(base) for one in visit.loaded)
    assert (searched / JOURNAL).read_bytes() == before


def test_a_search_that_is_looked_at_finds_what_it_finds_alone(browser, options, searched, tmp_path):
    pytest.importorskip("optuna_dashboard")
    folder = tmp_path / "watched"
    words = command("search.run", *options, "--out", folder)
    with (tmp_path / "said").open("w") as said, subprocess.Popen(words, stdout=said, stderr=said) as search:
        try:
            while not (folder / "study.json").exists() and search.poll() is None:
                time.sleep(0.05)
            with serving(*dashboard_command(folder)) as base, Visit(browser, f"{base}/dashboard/studies/0") as visit:
                visit.page.locator(".js-plotly-plot").first.wait_for()
                assert search.poll() is None, "the search was over before its dashboard was open"
                while search.poll() is None:  # far more often than the dashboard asks itself
                    assert visit.page.request.get(f"{base}/api/studies/0?after=0").ok
                    time.sleep(0.2)
                assert visit.errors == []
        finally:
            search.kill()
    assert search.returncode == 0, (tmp_path / "said").read_text()[-3000:]
    assert table(folder) == table(searched)


def test_where_a_browser_is_required_its_absence_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = what_is_missing()
    assert "apt-get install chromium" in missing
    monkeypatch.setenv(REQUIRE, "0")
    with pytest.raises(pytest.skip.Exception, match="chromium"):
        require(missing)
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_BROWSER is set, and none of chromium"):
        require(missing)
    require("")
