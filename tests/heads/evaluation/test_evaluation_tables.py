"""What a head did, as tables of any width and for any number of classes, and as CSV: the numbers add up to all rows."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from commands import invoke
from conftest import build_store
from rich.console import Console

from features.store.reader import FeatureStore
from heads.evaluation.report import Scored, make_report
from heads.evaluation.tables import tables
from heads.files.head_file import save_head
from heads.files.metadata import HeadMetadata
from heads.metrics.classification import MOST_COUNTED, Metrics, measure
from heads.metrics.excerpt import MOST_CLASSES, TOP_PAIRS, WORST_CLASSES, confused_lines
from heads.model.build import build_head
from heads.model.spec import HeadSpec


def scored(names: Sequence[str], *, each: int = 9, right: float = 0.7) -> tuple[np.ndarray, np.ndarray, Metrics]:
    """Probabilities and labels of ``each`` rows a class, of which the share ``right`` is called so."""
    generator, count = np.random.default_rng(len(names)), len(names)
    labels = np.repeat(np.arange(count), each)
    aside = (labels + generator.integers(1, min(count, 5), len(labels))) % count
    called = np.where(generator.random(len(labels)) < right, labels, aside)
    sure = generator.random((len(labels), count)).astype(np.float32) / count
    sure[np.arange(len(labels)), called] += 1
    sure /= sure.sum(axis=1, keepdims=True)
    return sure, labels, measure(sure, labels, tuple(names))


def printed(metrics: Metrics, width: int) -> list[str]:
    """The tables, one text each."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(tables(metrics, "title", console))
    text = console.file.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    return re.split("(?=[┏])", text)


def numbers_in(table: str) -> int:
    """The sum of the cells that hold a whole number."""
    return sum(int(cell) for line in table.splitlines() for cell in re.findall(r"(?<=│)\s*(\d+)\s*(?=│)", line))


@pytest.mark.parametrize("width", [40, 80, 100, 200, 400])
@pytest.mark.parametrize("classes", [2, 4, 12, 30, 61, MOST_COUNTED + 1])
def test_the_last_table_adds_up_to_all_rows_and_no_name_is_lost(classes, width):
    metrics = scored([f"species {number:03}" for number in range(classes)])[2]
    table = printed(metrics, width)[-1]
    assert numbers_in(table) == metrics.rows == 9 * classes
    if (classes in (2, 4) and width > 40) or (classes == 12 and width == 200):
        assert "true \\ called" in table
    if classes > MOST_CLASSES or (classes == 30 and width <= 100):
        assert "correct" in table
        assert "--confusion FILE.csv" in " ".join(table.split())
        shown = [line for line in table.splitlines() if len(re.findall(r"species \d\d\d ", line)) == 2]
        assert len(shown) == TOP_PAIRS


def test_long_names_are_folded_and_never_cut():
    names = [f"{letter * 70}-{number}" for number, letter in enumerate("abcdefghijkl")]
    for table in printed(scored(names)[2], 80)[1:]:
        assert "…" not in table
        assert table.count("a") >= 70


@pytest.mark.parametrize("width", [40, 50, 60, 66, 80])
@pytest.mark.parametrize("names", [("CNV", "DME", "DRUSEN", "NORMAL"), ("A" * 40, "梨" * 9)])
def test_a_narrow_terminal_loses_no_class_and_no_number(names, width):
    metrics = scored(names, each=161)[2]
    text = "".join(printed(metrics, width)).partition("class ")[2].partition("┏")[0]
    flat = "".join(re.findall(r"^\W*(\w*)", text, re.MULTILINE))  # the first column: a name may be folded
    for one in metrics.per_class:
        assert one.name in flat
        numbers = [f"{value:.4f}" for value in (one.sensitivity, one.specificity, one.precision, one.auc)]
        assert re.search(r"161\W+" + r"\W+".join(numbers), text)
    assert "…" not in text


def test_of_very_many_classes_the_worst_are_listed():
    metrics = scored([f"kind{number:04}" for number in range(300)])[2]
    table = printed(metrics, 80)[1]
    listed = re.findall(r"kind\d+", table)
    worst = sorted(metrics.per_class, key=lambda one: one.sensitivity)[:WORST_CLASSES]
    assert listed == [one.name for one in worst]
    assert f"the {WORST_CLASSES} classes with the least sensitivity of 300" in table


def test_what_is_kept_of_very_many_classes_is_bounded():
    few, many = (scored([f"k{number}" for number in range(count)])[2] for count in (MOST_COUNTED, MOST_COUNTED + 1))
    assert len(few.confusion) == MOST_COUNTED
    assert "pairs" not in few.to_dict()
    assert many.confusion == ()
    assert sum(pair["rows"] for pair in many.to_dict()["pairs"]) == many.rows
    for metrics in (few, many):
        counts = [pair.rows for pair in metrics.pairs]
        assert counts == sorted(counts, reverse=True)
        assert sum(counts) == metrics.rows
        right = sum(pair.rows for pair in metrics.pairs if pair.true == pair.called)
        assert right / metrics.rows == metrics.accuracy
        assert sum(int(rows) for *_, rows in confused_lines(metrics.confused, rows=metrics.rows, right=right)) == (
            metrics.rows
        )


@pytest.mark.parametrize("classes", [4, 30, MOST_COUNTED + 1])
def test_the_report_of_many_classes_is_bounded(tmp_path, classes):
    names = [f"species_{number:03}" for number in range(classes)]
    store = FeatureStore(build_store(tmp_path / "s.h5", rows=9 * classes, shape=(1, 1, 2), classes=names))
    sure = scored(names)[0]
    metrics = measure(sure, store.labels, store.classes)
    given = Scored(title="t", store=store, rows=store.usable, probabilities=sure, metrics=metrics)
    page = make_report(given, [], remark="")
    assert ("Confusion matrix" in page) == (classes <= MOST_CLASSES)
    assert ("Confused most often" in page) == (classes > 10)
    assert len(page) < 4_900_000  # Plotly is 4.8 MB of it


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head of the classes A to D, and stores: of two of them in another order, of one that it does not know."""
    folder = tmp_path_factory.mktemp("classes")
    store = FeatureStore(build_store(folder / "all.h5", rows=24, classes="ABCD"))
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, versions={})
    save_head(folder / "head.hdf5", build_head(HeadSpec(conv_width=16), (2, 2, 8), 4, seed=2), metadata)
    build_store(folder / "some.h5", rows=24, classes="DB")
    build_store(folder / "one.h5", rows=6, classes="C")
    build_store(folder / "strange.h5", rows=24, classes="DX")
    return folder


def test_a_store_with_some_of_the_classes_is_scored_and_the_others_are_said(world):
    status, out, _ = invoke("heads.evaluate", world / "head.hdf5", world / "some.h5")
    assert status == 0
    assert re.search(r"classes without rows +│ +A, C ", out)
    told = json.loads(invoke("heads.evaluate", world / "head.hdf5", world / "some.h5", "--json").out)
    assert [(one["name"], one["rows"]) for one in told["per_class"]] == [("A", 0), ("B", 12), ("C", 0), ("D", 12)]
    assert invoke("heads.evaluate", world / "head.hdf5", world / "one.h5").status == 0


def test_a_class_that_the_head_does_not_know_is_refused_by_name(world):
    status, out, err = invoke("heads.evaluate", world / "head.hdf5", world / "strange.h5")
    assert (status, out) == (2, "")
    known = f"none but those of {world / 'head.hdf5'}: A, B, C, D"
    assert err == f"error: {world / 'strange.h5'}: classes: expected {known}, found X (12 images)\n"


def test_brackets_in_names_of_classes_are_no_markup(tmp_path):
    """Rich would raise an error of a closing tag, and measure a name as if an opening one were not there."""
    names = ("CNV [wet/dry]", "DME [/x]", "[bold]N", ":smile:")
    store = FeatureStore(build_store(tmp_path / "store.h5", rows=24, classes=names))
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, versions={})
    save_head(tmp_path / "head.hdf5", build_head(HeadSpec(conv_width=16), (2, 2, 8), 4, seed=2), metadata)
    status, out, _ = invoke("heads.evaluate", tmp_path / "head.hdf5", store.path)
    assert status == 0
    assert all(name in out for name in names)


def test_the_confusion_is_written_as_csv(world, tmp_path):
    status, _, err = invoke("heads.evaluate", world / "head.hdf5", world / "all.h5", "--confusion", tmp_path / "c.csv")
    assert status == 0
    assert f"confusion: {tmp_path / 'c.csv'}" in err
    lines = csv.DictReader(io.StringIO((tmp_path / "c.csv").read_text(encoding="utf-8")))
    told = json.loads(invoke("heads.evaluate", world / "head.hdf5", world / "all.h5", "--json").out)
    counts = {(line["true"], line["called"]): int(line["rows"]) for line in lines}
    matrix = {("ABCD"[at], "ABCD"[to]): n for at, row in enumerate(told["confusion"]) for to, n in enumerate(row) if n}
    assert counts == matrix


@pytest.mark.parametrize("place", [".", "no/such/c.csv"])
def test_a_place_for_no_csv_is_refused_before_anything_is_scored(world, tmp_path, place):
    given = ("heads.evaluate", world / "head.hdf5", world / "all.h5", "--confusion", tmp_path / place)
    status, out, err = invoke(*given)
    assert (status, out) == (2, "")
    assert err.startswith("error: --confusion: expected a file in a folder that exists, found ")


def test_no_other_file_is_lost_for_the_confusion(world, tmp_path):
    given = ("heads.evaluate", world / "head.hdf5", world / "all.h5", "--confusion")
    for name, content in {
        "scans.h5": (world / "all.h5").read_bytes(),
        "labels.csv": b"path,label\na.png,A\n",
        "notes.txt": b"\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        status, out, err = invoke(*given, tmp_path / name)
        expected = f"expected a new file, or such a table to replace, found another file, {tmp_path / name}"
        assert (status, out, err) == (2, "", f"error: --confusion: {expected}; it stays as it is\n")
        assert (tmp_path / name).read_bytes() == content
    for content in (b"", b"\xef\xbb\xbftrue;called;rows\r\nA;B;3\r\n"):
        (tmp_path / "c.csv").write_bytes(content)
        assert invoke(*given, tmp_path / "c.csv").status == 0
        assert (tmp_path / "c.csv").read_text(encoding="utf-8").startswith("true,called,rows\n")
