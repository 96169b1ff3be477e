"""The HTML kit: what comes from outside stays text in every block, and the files that it is made of are found."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from conftest import ROOT, build_store
from made_study import MadeStudy, make_config
from markupsafe import Markup

from features.store.reader import FeatureStore
from heads.evaluation.report import Scored
from heads.evaluation.report import make_report as evaluation
from heads.html.document import Document, exhibit, facts, note, plain, prose, strong, table
from heads.metrics.classification import measure
from search.record.study_record import read_record
from search.review.report import make_report as study_report

HOSTILE = "</script></style><script>alert(1)</script><img src=x onerror=alert(1)>&\"' onload='x {{ 1 + 1 }} {% raw %}"
FILES = ROOT / "heads" / "html" / "files"


class Elements(HTMLParser):
    """The elements of a page, their attributes, and the texts between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(str(text))  # plain: parts of Markup would be Markup
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def figure(title: str = "") -> go.Figure:
    return go.Figure(go.Scatter(x=[0, 1], y=[0, 1], name=title)).update_layout(height=200, title=title)


BLOCKS: dict[str, Callable[[str], str]] = {
    "prose": prose,
    "strong": strong,
    "note": note,
    "plain": plain,
    "plain, folded": lambda text: plain(text, folded=text),
    "facts": lambda text: facts([(text, text)]),
    "table": lambda text: table((text, "other"), [(text, text)], marked_diagonal=True),
    "wide table": lambda text: table((text, "other"), [(text, text)], wide=True, named_rows=True),
    "exhibit": lambda text: exhibit(text, text, [text], [(text, text), ("", text)]),
    "figure": lambda text: Document("t", "s").figure(figure(text), text, wide=True),
    "grid": lambda text: Document.grid([text]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_shows_hostile_text_as_it_is(name: str):
    harmless, shown = Elements(BLOCKS[name]("harmless")), Elements(BLOCKS[name](HOSTILE))
    assert shown.names == harmless.names
    assert [attribute for attribute, _ in shown.attributes] == [attribute for attribute, _ in harmless.attributes]
    assert shown.texts == [text.replace("harmless", HOSTILE) for text in harmless.texts]
    assert [value for _, value in shown.attributes] == [
        (value or "").replace("harmless", HOSTILE) for _, value in harmless.attributes
    ]


@pytest.mark.parametrize("block", [prose, strong, note])
def test_an_option_in_a_sentence_is_not_broken_at_its_dashes(block):
    text = f"--folds auto took one part: --class-weights, or a--b -- so it is; <--seed> --Out --{'x' * 99}"
    shown = Elements(block(text))
    assert "".join(shown.texts) == text
    assert [told for told in shown.texts if told.startswith("--")] == ["--folds", "--class-weights", "--seed"]
    assert shown.names == ["p"] + ["span"] * 3


def test_a_block_is_markup_and_plain_text_in_its_place_is_not_trusted():
    assert all(isinstance(make("text"), Markup) for make in BLOCKS.values())
    document = Document(HOSTILE, HOSTILE)
    document.cards([(HOSTILE, HOSTILE, HOSTILE)])
    document.lead(HOSTILE, "", prose("a paragraph"))
    document.add(HOSTILE, HOSTILE, "", note("a note"))
    document.add("Figures", document.figure(figure(HOSTILE), HOSTILE))
    text = document.html()
    shown = Elements(text)
    assert [shown.names.count(name) for name in ("script", "style", "img", "title", "h1", "h2")] == [4, 1, 0, 1, 1, 2]
    # title, first heading, subtitle, three of the card, the lead, and heading and part of the section
    assert "".join(shown.texts).count(HOSTILE) == 9
    told = re.search(r'id="figures">([^<]*)</script>', text)
    assert told
    assert json.loads(told[1])[0]["data"][0]["name"] == HOSTILE


def test_the_policy_stands_before_anything_that_could_be_loaded():
    text = Document("title", "subtitle").html()
    assert text.startswith("<!DOCTYPE html>\n<html lang")
    before, policy, _ = re.split(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text)
    assert "<script" not in before
    assert "<style" not in before
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'unsafe-inline'",  # and no 'unsafe-eval'
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
    }


def test_without_figures_there_is_no_plotly():
    document = Document("title", "subtitle")
    document.add("Nothing to draw", document.figure(None, "nothing"))
    assert len(document.html()) < 15_000
    document.add("Something", document.figure(figure(), "a line"))
    assert "plotly.js v" in document.html()


def test_a_row_that_does_not_fit_its_table_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        table(("one", "two"), [("1", "2"), ("1",)])


def test_the_diagonal_of_a_confusion_matrix_is_marked():
    text = table(("true \\ called", "A", "B"), [("A", "5", "1"), ("B", "2", "7")], marked_diagonal=True)
    assert re.findall(r"<td class=hit>(\d)</td>", text) == ["5", "7"]


def test_its_files_are_found_where_the_packages_come_in_an_archive(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "packages.zip", "w") as archive:
        for path in sorted([*(ROOT / "features").rglob("*.py"), *(ROOT / "heads").rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(ROOT))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from heads.html import document\n"
        "made = document.Document('t', 's'); made.add('h', document.prose('<p>'))\n"
        "print(document.__file__); print(made.html())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "packages.zip")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    file, page = done.stdout.split("\n", 1)
    assert Path(file) == tmp_path / "packages.zip" / "heads" / "html" / "document.py"
    assert "<p>&lt;p&gt;</p>" in page
    assert ".card" in page


def test_its_files_are_installed_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["heads.html"]
    installed = {path for pattern in patterns for path in FILES.parent.glob(pattern)}
    assert installed == {path for path in FILES.parent.rglob("*") if path.suffix in {".css", ".js", ".jinja"}}
    assert len(installed) >= 9


def test_only_the_adapter_knows_plotlys_insides():
    """Underscored members, and the classes of what it draws; tests/search/review/test_browser.py tries the adapter."""
    for path in FILES.iterdir():
        if path.name != "plotly_internals.js":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"\w\._\w|main-svg|svg-container|plot-container|js-plotly|\bgtitle\b", text), path.name


def test_both_reports_are_such_documents(tmp_path: Path):
    made = MadeStudy(tmp_path / "study", make_config())
    made.train(12)
    made.conclude()
    store = FeatureStore(build_store(tmp_path / "store.h5", rows=12))
    rows = np.arange(len(store))
    probabilities = np.full((len(rows), len(store.classes)), 1 / len(store.classes), np.float32)
    metrics = measure(probabilities, store.labels, store.classes)
    scored = Scored(title="title", store=store, rows=rows, probabilities=probabilities, metrics=metrics)
    pages = [study_report(read_record(made.close())), evaluation(scored, [], remark="")]
    empty = Document("", "").html()
    style = re.search(r"<style>.*?</style>", empty, re.DOTALL)
    policy = re.search(r"<meta http-equiv[^>]*>", empty)
    assert style
    assert policy
    for page in pages:
        assert style[0] in page
        assert policy[0] in page
        assert page.count("function markDrawing(") == 1
        assert 'class="figure" id="figure-0" role="img" aria-label="' in page
