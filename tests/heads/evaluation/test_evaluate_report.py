"""``heads.evaluate --report``: one page, its numbers those that are printed, the surest mistakes first."""

from __future__ import annotations

import io
import json
import re
import shutil
from base64 import b64decode
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import build_store
from limited_files import largest_file
from made_pictures import MISLABELLED, SIZE, World
from PIL import Image

from features.rows.feed import Feed
from features.store.reader import FeatureStore
from heads.evaluation import report
from heads.files.head_file import read_head, save_head
from heads.files.metadata import HeadMetadata
from heads.html.document import Document
from heads.metrics.classification import measure
from heads.metrics.scoring import predict_probabilities
from heads.model.build import build_head
from heads.model.spec import HeadSpec

FIGURES = r'<script type="application/json" id="figures">([^<]+)</script>'


def written(folder: Path) -> str:
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    return (folder / "index.html").read_text(encoding="utf-8")


def body(page: str) -> str:
    """The page without its scripts."""
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def cards(page: str) -> list[str]:
    return re.findall(r"<article>.*?</article>", page, re.DOTALL)


def path_of(card: str) -> str:
    return unescape(re.search(r'<p class="soft">([^<]+)', card).group(1))


@pytest.fixture(scope="module")
def untrained(made_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head with random weights, which is wrong more often than not."""
    store = FeatureStore(made_world.store)
    path = tmp_path_factory.mktemp("untrained") / "head.hdf5"
    model = build_head(HeadSpec(conv_width=16), store.header.feature_shape, 3, seed=2)
    save_head(path, model, HeadMetadata.of_store(store.header, store.fingerprint, versions={}))
    return path


class TestPage:
    def test_the_mislabelled_picture_is_the_surest_mistake(
        self, invoke: Any, made_world: World, tmp_path: Path
    ) -> None:
        arguments = (made_world.head, made_world.store, "--json", "--report", tmp_path, "--images", made_world.images)
        status, out, err = invoke("heads.evaluate", *arguments)
        told, page = json.loads(out), written(tmp_path)
        assert status == 0
        assert err.endswith(f"report: {tmp_path / 'index.html'}\n")
        first, *_ = cards(page)
        assert path_of(first) == MISLABELLED
        assert len(cards(page)) == 28 - round(told["accuracy"] * 28)
        assert re.search(r"<h3><bdi>bright</bdi> [\d.]+ <small>is <bdi>dark</bdi> [\d.]+</small></h3>", first)

    def test_every_mistake_in_order_with_its_pictures(
        self, invoke: Any, made_world: World, untrained: Path, tmp_path: Path
    ) -> None:
        arguments = (untrained, made_world.store, "--report", tmp_path, "--images", made_world.images)
        assert invoke("heads.evaluate", *arguments)[0] == 0
        store, page = FeatureStore(made_world.store), written(tmp_path)
        feed = Feed(store, store.usable, memory_bytes=10**9)
        probabilities = predict_probabilities(read_head(untrained).model, feed)
        wrong = np.flatnonzero(probabilities.argmax(axis=1) != store.labels)
        assert len(cards(page)) == len(wrong) > 5
        assert f"Misclassified: {len(wrong)}" in page
        assert [path_of(card) for card in cards(page)] == [
            store.header.paths[row] for row in sorted(wrong, key=lambda row: -probabilities[row].max())
        ]
        for card in cards(page):
            heading = r"<h3><bdi>(\w+)</bdi> ([\d.]+) <small>is <bdi>(\w+)</bdi> ([\d.]+)"
            called, sure, true, chance = re.search(heading, card).groups()
            row = store.header.paths.index(path_of(card))
            assert float(sure) == pytest.approx(probabilities[row].max(), abs=6e-4)
            assert float(chance) == pytest.approx(probabilities[row, store.labels[row]], abs=6e-4)
            assert (true, called) == (path_of(card).split("/")[0], store.classes[probabilities[row].argmax()])
            pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', card)
            remarks = re.findall(r"<figcaption>([^<]+)</figcaption>", card)
            assert remarks[0] == "as it is"
            assert [re.sub("^nothing speaks ", "", text) for text in remarks[1:]] == [f"for {called}", f"for {true}"]
            assert len(pictures) == 3 - sum("nothing" in text for text in remarks)
            assert {Image.open(io.BytesIO(b64decode(content))).size for content in pictures} == {SIZE}

    def test_its_numbers_are_those_that_are_printed(
        self, invoke: Any, made_world: World, untrained: Path, tmp_path: Path
    ) -> None:
        _, out, _ = invoke("heads.evaluate", untrained, made_world.store, "--json", "--report", tmp_path)
        told, page = json.loads(out), written(tmp_path)
        confusion, roc, reliability = json.loads(re.search(FIGURES, page).group(1))
        assert confusion["data"][0]["text"] == told["confusion"]
        assert confusion["layout"]["yaxis"]["autorange"] == "reversed"  # the first class on top, as in the table
        assert [curve.get("name") for curve in roc["data"][1:]] == [
            f"{one['name']} (AUC {one['auc']:.4f})" for one in told["per_class"]
        ]
        for curve, one in zip(roc["data"][1:], told["per_class"], strict=True):
            assert np.trapezoid(curve["y"], curve["x"]) == pytest.approx(one["auc"], abs=1e-6)
        assert sum(int(rows) for rows in reliability["data"][1]["text"]) == told["rows"] == 28
        assert f"accuracy {told['accuracy']:.4f}" in page
        cells = re.findall(r"<td>([^<]+)</td>", page)
        names = ("rows", "sensitivity", "specificity", "precision", "auc")
        expected = [one[name] for one in told["per_class"] for name in names]
        shown = ["-" if value is None else f"{value}" if type(value) is int else f"{value:.4f}" for value in expected]
        assert cells == shown

    def test_loads_nothing(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        arguments = (made_world.head, made_world.store, "--report", tmp_path, "--images", made_world.images)
        invoke("heads.evaluate", *arguments)
        page = written(tmp_path)
        assert "default-src 'none'" in page
        assert not re.search(r"""(src|href)=["'](?!data:)""", body(page))

    def test_without_images_the_mistakes_are_named(
        self, invoke: Any, made_world: World, untrained: Path, tmp_path: Path
    ) -> None:
        assert invoke("heads.evaluate", untrained, made_world.store, "--report", tmp_path)[0] == 0
        page = written(tmp_path)
        assert cards(page)
        assert "<img" not in body(page)
        assert "FOLDER they are shown with what the head saw." in page

    def test_no_more_than_a_browser_opens(
        self, invoke: Any, made_world: World, untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(report, "MAX_MISTAKES", 2)
        invoke("heads.evaluate", untrained, made_world.store, "--report", tmp_path, "--images", made_world.images)
        page = written(tmp_path)
        assert len(cards(page)) == 2
        assert "The first 2 are shown." in page

    def test_a_head_that_makes_no_mistake(self, invoke: Any, tmp_path: Path) -> None:
        """And a class without rows has no curve and no shares."""
        store = FeatureStore(build_store(tmp_path / "store.h5", rows=3, shape=(1, 1, 4)))
        assert set(store.labels) == {0}
        model = build_head(HeadSpec(conv_width=16, batch_norm=False), (1, 1, 4), 4)
        *rest, bias = model.get_weights()
        model.set_weights([*rest, bias + np.eye(4)[0] * 100])
        save_head(tmp_path / "head.hdf5", model, HeadMetadata.of_store(store.header, store.fingerprint, versions={}))
        arguments = (tmp_path / "head.hdf5", store.path, "--report", tmp_path / "report")
        assert invoke("heads.evaluate", *arguments)[0] == 0
        page = written(tmp_path / "report")
        assert "Misclassified: 0" in page
        assert not cards(page)
        confusion, roc, _ = json.loads(re.search(FIGURES, page).group(1))
        assert confusion["data"][0]["text"][0] == [3, 0, 0, 0]
        assert len(roc["data"]) == 1  # the diagonal
        assert "<td>-</td>" in page


@pytest.mark.parametrize(
    ("classes", "length", "below"), [(4, 3, False), (6, 12, False), (7, 3, True), (4, 60, True), (14, 60, True)]
)
def test_names_of_many_curves_stand_below_them(classes: int, length: int, below: bool) -> None:
    """In the corner below the curves there is room for a few short ones."""
    labels = np.arange(40 * classes) % classes
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), len(labels)).astype(np.float32)
    names = tuple(f"{number:0{length}}" for number in range(classes))
    figure = report.roc_figure(measure(probabilities, labels, names), probabilities, labels)
    curves = figure.data[1:]
    assert (figure.layout.legend.y < 0) == below
    assert figure.layout.height == report._HEIGHT + below * report._LINE * len(curves)
    assert max(len(curve.name) for curve in curves) < 42  # which fit a phone


def test_every_curve_has_a_look_of_its_own_and_every_class_a_name_of_its_own() -> None:
    """Long names may differ in the middle only, and Plotly has ten colours."""
    names = tuple(f"a long name that begins alike {number:02} and ends alike" for number in range(14))
    labels = np.arange(560) % 14
    probabilities = np.random.default_rng(0).dirichlet(np.ones(14), len(labels)).astype(np.float32)
    metrics = measure(probabilities, labels, names)
    curves = report.roc_figure(metrics, probabilities, labels).data[1:]
    looks = [(at % 10, curve.line.dash) for at, curve in enumerate(curves)]
    assert len(set(looks)) == len({curve.name.split(" (AUC")[0] for curve in curves}) == len(curves) == 12
    ticks = report.confusion_figure(metrics, names).layout.xaxis.ticktext
    assert len(set(ticks)) == 14
    assert ticks[3].startswith("4: a long")
    assert max(map(len, ticks)) < 30


class TestNames:
    def test_of_classes_and_images_are_text_only(self, invoke: Any, tmp_path: Path) -> None:
        names = ("</script><script>alert(1)</script>", 'a" onload="x', "<b>c</b>", "é\n\x1b[31m{title}")
        store = FeatureStore(build_store(tmp_path / "store.h5", rows=24, classes=names))
        model = build_head(HeadSpec(conv_width=16), (2, 2, 8), 4, seed=3)
        save_head(tmp_path / "head.hdf5", model, HeadMetadata.of_store(store.header, store.fingerprint, versions={}))
        folder = tmp_path / "<i>&{report}"
        assert invoke("heads.evaluate", tmp_path / "head.hdf5", store.path, "--report", folder)[0] == 0
        page = written(folder)
        assert len(cards(page)) > 4
        assert page.count("<script") == page.count("</script>") == 4
        for text in ("alert(1)</script>", "<b>c", 'onload="x', "\x1b"):
            assert text not in body(page)
            assert text not in re.search(FIGURES, page).group(1)
        shown = json.loads(re.search(FIGURES, page).group(1))[0]["layout"]["xaxis"]["ticktext"]
        assert [unescape(text) for text in shown[:3]] == ["</script><sc...(1)</script>", *names[1:3]]
        assert "<" not in "".join(shown)  # Plotly would take it for markup
        assert shown[1] == names[1]  # of entities it knows only a few, &quot; not among them
        assert shown[3] == "é\\n\\x1b[31m{title}"


class TestFolder:
    def test_is_made(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        folder = tmp_path / "a" / "b"
        assert invoke("heads.evaluate", made_world.head, made_world.store, "--report", folder)[0] == 0
        assert written(folder).startswith("<!DOCTYPE html>")

    def test_what_does_not_fit(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        site = tmp_path / "site" / "index.html"
        site.parent.mkdir()
        site.write_text("somebody's own page")
        common = (made_world.head, made_world.store)
        such = f"the folder with {made_world.store}'s images, such as bright/bright-0-0.png"
        cases = {
            ("--images", made_world.images): "--images: expected --report DIR, which shows them, found none",
            ("--images", tmp_path, "--report", tmp_path / "report"): f"{tmp_path}: expected {such}, found none of them",
            ("--images", "gone", "--report", tmp_path / "report"): f"gone: expected {such}, found no such folder",
            ("--report", site.parent): "--report: expected a new file, or a report to replace, found another file,"
            f" {site}; it stays as it is",
            ("--report", tmp_path / "file"): f"{tmp_path / 'file'}: expected a folder, found a file",
        }
        for options, message in cases.items():
            status, out, err = invoke("heads.evaluate", *common, *options)
            assert (status, out) == (2, "")
            assert err.splitlines()[-1] == f"error: {message}"
        assert not (tmp_path / "report").exists()
        assert site.read_text() == "somebody's own page"

    def test_a_full_disk_leaves_the_old_page(self, invoke: Any, made_world: World, tmp_path: Path) -> None:
        old = Document("old", "page").html()
        (tmp_path / "index.html").write_text(old, encoding="utf-8")
        with largest_file(100_000):
            status, _, err = invoke("heads.evaluate", made_world.head, made_world.store, "--report", tmp_path)
        assert status == 1
        assert err.splitlines()[-1].startswith(f"error: {tmp_path / 'index.html'}: larger than a file may be here")
        assert written(tmp_path) == old

    def test_images_of_another_size_are_not_shown_for_those_of_the_store(
        self, invoke: Any, made_world: World, tmp_path: Path
    ) -> None:
        shutil.copytree(made_world.images, tmp_path / "images")
        (tmp_path / "images" / MISLABELLED).write_bytes(b"short")
        arguments = (made_world.head, made_world.store, "--report", tmp_path / "report")
        assert invoke("heads.evaluate", *arguments, "--images", tmp_path / "images")[0] == 0
        first, *_ = cards(written(tmp_path / "report"))
        assert "another file: 5 bytes" in first
        assert "<img" not in first
