"""The benchmarks run, and count what they say they count. What they measure is for quiet machines."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from functools import cache
from importlib import import_module

import browser
import numpy as np
import postgres
import pytest
from conftest import ROOT, build_store

from features import extract, make_scans
from features.store.reader import FeatureStore
from heads.bank.shape import BankShape
from heads.model.spec import HeadSpec
from search import run_study

BENCHMARKS = ROOT / "benchmarks"
PACKAGES = {"features", "heads", "search"}
TINY = {
    "agreement": "{store} --epochs 1 --heads 2 --seeds 1",
    "cluster": "--epoch 0.05 --workers 1 --rounds 1 --epochs 4",
    "compression": "{store} --quick --channels 8",
    "extraction": "--images {images} --backbone mobilenet --limit 8 --repetitions 1 --no-memory --batch-size 4",
    "flat": "--store {store} --trials 20 --epochs 1 --most-kb 1e6",
    "intervals": "--patients 6 --times 2",
    "linear_probe": "{store} --folds 2",
    "near_identical": "--images {images} --backbone mobilenet --alpha 0.25 --image-size 32",
    "passes": "--shape 2,2,32 --batch 8 --trials 8 --heads 2",
    "products": "--shape 2,2,32 --batch 8 --pages 8 --tiles 8",
    "pruning": "{study} --orders 2",
    "report": "--trials 30 --dashboard-trials 20 --epochs 5 --repeat 1 --watch 12",
    "sight": "--images {images} --store {images_store} --weights random:0 --epochs 1 --scans 2",
    "uncached": "--images {images} --backbone mobilenet --limit 16 --repetitions 1 --batch-size 8",
}
"""Arguments with which a program is run in a process of its own, to its end."""
BY_THEMSELVES = {"choosing", "engine", "gpu", "orders", "sampling", "views"}
"""Programs with tests of their own below."""
TOO_LONG = {"several_stores"}
"""Three searches, of which each compiles several banks: minutes."""


@pytest.fixture
def beside(monkeypatch):
    """Lets benchmarks import each other, as they do where one is run."""
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_operations_are_those_of_a_heads_own_sizes(beside):
    module = runpy.run_path(str(BENCHMARKS / "default_space.py"))
    spec = HeadSpec(conv_width=32, pooling="flatten", dense_layers=2, dense_units=24)
    shape = BankShape.covering(
        [spec, HeadSpec(conv_width=256)], pages=40, feature_shape=(3, 3, 64), classes=5, batch=10
    )
    first = 2 * 2 * 10 * 9 * 64 * 32  # forward and the weights' gradient, a product and a sum each
    assert module["first_layer"](spec, shape) == first
    dense = 3 * 2 * 10 * (9 * 32 * 24 + 24 * 24 + 24 * 5)
    assert module["all_products"](spec, shape) == first + dense
    pooled = HeadSpec(conv_width=32, pooling="max")
    assert module["all_products"](pooled, shape) == first + 3 * 2 * 10 * 32 * 5


def test_what_they_import_is_there():
    """Most run only where something is measured."""
    missing = []
    for path in sorted(BENCHMARKS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                module = import_module(str(node.module))
                missing += [
                    f"{path.name}: {node.module}.{one.name}" for one in node.names if not hasattr(module, one.name)
                ]
    assert not missing


def test_each_of_them_is_run_by_a_test_or_left_out_for_a_reason():
    programs = {path.stem for path in BENCHMARKS.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    assert sorted(programs) == sorted([*TINY, *BY_THEMSELVES, *TOO_LONG])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """What programs are run on, by the name that ``TINY`` has for it; each made when it is first asked for."""
    place = tmp_path_factory.mktemp("tiny")

    @cache
    def made(name):
        if name == "store":
            return build_store(place / "store.h5", rows=120, shape=(2, 2, 32), views=("identity", "flip"))
        if name == "study":
            kept = {"pruner": "none", "sampler": "random", "finalists": 0, "folds": 0, "pages": 16, "progress": False}
            return run_study(made("store"), out=place / "study", trials=6, epochs=8, batch_size=20, **kept).folder
        if name == "images":
            make_scans(place / "scans", seed=0, per_class=8, size=40)
            return place / "scans"
        options = {"backbone": "mobilenet", "alpha": 0.25, "weights": "random:0", "image_size": 32, "progress": False}
        return extract(made("images"), place / "images.h5", views=["identity", "flip"], **options).path

    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_it_runs_to_its_end(tiny, name):
    if name == "cluster" and postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed")
    if name == "report" and (missing := browser.what_is_missing()):
        browser.require(missing)
    wanted = re.findall(r"{(\w+)}", TINY[name])
    words = TINY[name].format(**{what: tiny(what) for what in wanted}).split()
    program = [sys.executable, str(BENCHMARKS / f"{name}.py"), *words]
    done = subprocess.run(
        program, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 40])
def test_a_sample_of_heads_is_as_wide_as_all_of_them(beside, count):
    balanced = runpy.run_path(str(BENCHMARKS / "default_space.py"))["balanced"]
    generator = np.random.default_rng(count)
    specs = [HeadSpec(conv_width=int(width)) for width in 16 * generator.integers(1, 17, 10)]
    mean = np.mean([spec.conv_width for spec in specs])
    for round_ in range(3):
        sample = balanced(specs, count, round_)
        assert len(sample) == min(count, 10)
        widths = [spec.conv_width for spec in sample]
        assert widths == sorted(widths)
        if count > 2 or not round_:
            assert abs(np.mean(widths) - mean) <= (16 if count > 1 else 32)
    assert sorted(balanced(specs, 10, 0), key=id) == sorted(specs, key=id)


@pytest.mark.slow
def test_a_studys_own_space_is_measured_on_a_store(beside, tmp_path, monkeypatch, capsys):
    store = build_store(tmp_path / "store.h5", rows=60, views=("identity", "flip"))
    words = ["--study", ROOT / "studies" / "heads.toml", "--store", store, "--folds", 2, "--quick"]
    words += ["--pages", 20, "--rounds", 1, "--sample", 1, "--epochs", 1, "--batch-size", 20]
    monkeypatch.setattr(sys, "argv", ["engine.py", *map(str, words)])
    runpy.run_path(str(BENCHMARKS / "engine.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "heads on" in said
    assert "2 folds" in said
    assert "2 view(s)" in said
    rates = {name: float(rate) for name, rate in re.findall(r"^  (one at a time|fused) +([\d.]+) trial-", said, re.M)}
    assert rates.keys() == {"one at a time", "fused"}
    assert all(rate > 0 for rate in rates.values())
    assert "traced programs: 2" in said


@pytest.mark.slow
def test_every_row_is_tested_once_by_a_search_that_never_saw_it(beside, tmp_path, monkeypatch, capsys):
    views = ("identity", "flip")
    store = build_store(tmp_path / "store.h5", rows=90, views=views)
    other = build_store(tmp_path / "other.h5", rows=90, shape=(1, 1, 8), seed=1, views=views)
    words = [store, f"second={other}", "--folds", 2, "--keep", tmp_path / "kept"]
    for option in ("trials=2", "epochs=2", "finalists=0", "batch_size=20"):
        words += ["--option", option]
    monkeypatch.setattr(sys, "argv", ["choosing.py", *map(str, words)])
    for _ in range(2):  # the second time from what is there
        runpy.run_path(str(BENCHMARKS / "choosing.py"), run_name="__main__")
        said = capsys.readouterr().out
        assert "90 rows, 2 outer folds by patient, store, second" in said
        assert re.search(r"the article's head +\d+\.\d%", said)
        assert re.search(r"single winner +\d+\.\d%.*points", said)
        assert re.search(r"recommended, image as it is +\d+\.\d%.*points", said)
        assert re.search(r"linear probe +\d+\.\d%.*points", said)
    parts = [FeatureStore(tmp_path / "kept" / fold / "store-test.h5") for fold in "01"]
    inner = [FeatureStore(tmp_path / "kept" / fold / "second-train.h5") for fold in "01"]
    assert sorted(path for part in parts for path in part.header.paths) == sorted(FeatureStore(store).header.paths)
    for tested, searched in zip(parts, inner, strict=True):
        assert not set(tested.header.patients) & set(searched.header.patients)
        assert len(tested) + len(searched) == 90


@pytest.mark.slow
def test_searches_are_played_over_a_study_that_was_not_pruned(beside, tmp_path, monkeypatch, capsys):
    store = build_store(tmp_path / "store.h5", rows=90)
    quiet = {"pruner": "none", "sampler": "qmc", "finalists": 0, "folds": 0, "progress": False}
    run_study(store, out=tmp_path / "table", trials=12, epochs=8, batch_size=20, **quiet)
    words = [tmp_path / "table", "--seeds", 2, "--trials", 14, "--at-once", 4]
    monkeypatch.setattr(sys, "argv", ["sampling.py", *map(str, words)])
    capsys.readouterr()
    runpy.run_path(str(BENCHMARKS / "sampling.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "12 real heads; 2 searches of 14 trials" in said
    rows = re.findall(r"^(tpe|bohb|random) +(\d+\.\d\d) ± .* (\d+)$", said, re.M)
    assert [name for name, _, _ in rows] == ["tpe", "bohb", "random"]
    assert all(0 < float(worth) <= 100 and 14 < int(trained) < 14 * 8 for _, worth, trained in rows)


@pytest.mark.slow
def test_repeats_are_compared_in_one_order_and_in_their_own(beside, tmp_path, monkeypatch, capsys):
    store = build_store(tmp_path / "store.h5", rows=90)
    words = [store, "--heads", 2, "--repeats", 2, "--epochs", 3]
    monkeypatch.setattr(sys, "argv", ["orders.py", *map(str, words)])
    runpy.run_path(str(BENCHMARKS / "orders.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "90 rows, 5 folds, 2 heads, 2 repeats, 3 epochs" in said
    rows = re.findall(r"^  (one|an) order for .*: ([\d.]+)% right, .* differ on ([\d.]+)% of the rows", said, re.M)
    assert [which for which, _, _ in rows] == ["one", "an"]
    assert all(0 < float(right) <= 100 and 0 < float(unlike) < 100 for _, right, unlike in rows)


@pytest.mark.slow
def test_a_bank_over_features_made_on_the_device_searches_to_its_end():
    pytest.importorskip("jax")
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--quick"]
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"4 pages, +1 heads: +[\d.]+ ms per trial-epoch", done.stdout)
    assert "search of 12 trials" in done.stdout
    refused = subprocess.run(command[:2], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("JAX sees no GPU here")


@pytest.mark.slow
def test_heads_are_compared_on_some_views_of_a_store(beside, tmp_path, monkeypatch, capsys):
    store = build_store(tmp_path / "store.h5", rows=90, views=("identity", "flip", "zoom:2"))
    words = [store, "--views", "identity", "zoom:2,identity", "--seeds", 2, "--folds", 2, "--epochs", 2]
    monkeypatch.setattr(sys, "argv", ["views.py", *map(str, words)])
    runpy.run_path(str(BENCHMARKS / "views.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "6 heads x 2 seeds, 2 folds by patient of 90 rows, 2 epochs" in said
    assert "zoom:2, identity, instead of identity" in said
    assert len(re.findall(r"^.* 0\.\d{4}  0\.\d{4} +[+-]0\.\d{4} ", said, re.M)) == 7


def test_some_views_are_read_as_those_of_the_store(beside, tmp_path):
    store = FeatureStore(build_store(tmp_path / "store.h5", rows=20, views=("identity", "flip", "zoom:2")))
    some = runpy.run_path(str(BENCHMARKS / "views.py"))["SomeViews"](store, ["zoom:2", "identity"])
    assert some.header.views == ("zoom:2", "identity")
    rows = np.array([3, 19, 3])
    every = store.take(rows)[:, [2, 0]]
    np.testing.assert_array_equal(some.take(rows), every)
    np.testing.assert_array_equal(some.take(rows, 1), every[:, 1])
    np.testing.assert_array_equal(some.take(rows, np.array([0, 1, 1])), every[[0, 1, 2], [0, 1, 1]])
    chunks = np.concatenate([features for _, features in some.chunks(1)])
    np.testing.assert_array_equal(chunks, store.take(np.arange(20))[:, [2, 0]])
