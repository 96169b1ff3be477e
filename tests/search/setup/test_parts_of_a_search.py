"""A search uses the parts that its store says, unless it is told otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import build_header, fill_store
from made_data import made_data
from made_study import make_config

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.evaluation.rows import Part, rows_of
from heads.files.metadata import HeadMetadata
from heads.files.split_recipe import SplitRecipe
from search.setup.data import SearchData

PARTS = ("train",) * 48 + ("validation",) * 12 + ("test",) * 12
"""Rows come in threes of a patient."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("parts") / "store.h5"
    header = replace(build_header(rows=72), parts=PARTS)
    return fill_store(made, header)


def load(path: Path, **more: Any) -> SearchData:
    return made_data(path, share=0.15, **more)


def sizes(data: SearchData) -> tuple[int, int, int]:
    return len(data.train.rows), len(data.validation.rows), 0 if data.test is None else len(data.test.rows)


def test_parts_are_used_and_that_is_said(path: Path) -> None:
    data = load(path)
    assert sizes(data) == (48, 12, 12)
    assert data.split.parts == data.recipe.parts == "given"
    assert "store.h5: train, validation, test as given; --ignore-parts splits all rows anew" in data.remarks


def test_they_are_split_anew_on_request(path: Path) -> None:
    data = load(path, ignore_parts=True)
    assert sizes(data) != (48, 12, 12)
    assert data.split.parts is None
    assert not any("as given" in remark for remark in data.remarks)


def test_what_files_say_of_a_split_stays_in_its_order(path: Path) -> None:
    data = load(path)
    told = data.split.with_rows(data.rows)
    first, last = ["identity", "counts", "class_counts", "patients"], ["validation", "test", "seed", "folds"]
    assert list(told) == [*first, "rows", *last, "parts", "absent_classes"]
    assert {name: len(rows) for name, rows in told["rows"].items()} == data.split.counts
    split = make_config(split=data.split).to_dict()["split"]
    assert json.dumps(split) == json.dumps({name: value for name, value in told.items() if name != "rows"})
    older = {name: split[name] for name in ("identity", "counts", "patients", *last)}
    assert json.dumps(make_config(split=older).to_dict()["split"]) == json.dumps(older)
    folded = load(path, folds=3)
    assert list(map(len, folded.split.with_rows(folded.rows)["rows"].values())) == [60, 0, 12]
    assert folded.recipe.to_dict() == {
        "seed": 0,
        "validation": 0.0,
        "test": 0.15,
        "identity": folded.split.identity,
        "parts": "given",
    }


def test_a_refusal_names_the_store_once(tmp_path: Path) -> None:
    path, header = tmp_path / "store.h5", replace(build_header(rows=72), parts=("train", "test", "test") * 24)
    fill_store(path, header)
    said = f"{path}: parts: expected rows to train on, found none left; --ignore-parts splits all rows anew"
    store = FeatureStore(path)
    split = SplitRecipe(seed=0, validation=0.15, test=0.15, identity="0" * 16, parts="given")
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, split=split, versions={})
    for ask in (lambda: load(path), lambda: rows_of(Part.VALIDATION, tmp_path / "head.hdf5", metadata, store)):
        with pytest.raises(InputError) as caught:
            ask()
        assert str(caught.value) == said


def test_a_class_that_is_given_for_other_parts_only_is_told_as_that(tmp_path: Path) -> None:
    path, header = tmp_path / "store.h5", build_header(rows=72)
    parts = ("test" if label == 1 else "train" for label in header.labels)
    header = replace(header, parts=tuple(parts))
    fill_store(path, header)
    with pytest.raises(InputError) as caught:
        load(path)
    told = f"none of {header.classes[1]}, 18 images of 6 patients, given as test; call a class's folder the same"
    assert told in str(caught.value)
    assert "--ignore-parts" in str(caught.value)
    assert "--seed" not in str(caught.value)
    load(path, ignore_parts=True)


def test_folds_are_of_all_rows_but_those_of_the_test(path: Path) -> None:
    data = load(path, folds=3)
    assert data.train.rows.tolist() == list(range(60))
    assert sorted(np.concatenate(data.folds)) == list(range(60))
    assert data.test is not None
    assert data.test.rows.tolist() == list(range(60, 72))


@pytest.mark.parametrize("name", ["validation", "test"])
def test_a_part_that_comes_twice_is_refused(path: Path, name: str) -> None:
    told = f"--{name}: expected none, since .* has a {name} part, found .*--ignore-parts"
    with pytest.raises(InputError, match=told):
        load(path, **{name: path})


@pytest.mark.parametrize("folds", [0, 3])
def test_an_evaluation_finds_the_parts_of_the_study(path: Path, folds: int) -> None:
    data, store = load(path, folds=folds), FeatureStore(path)
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, split=data.recipe, versions={})
    assert rows_of(Part.TEST, Path("head.hdf5"), metadata, store).tolist() == list(range(60, 72))
    assert rows_of(Part.TRAIN, Path("head.hdf5"), metadata, store).tolist() == data.train.rows.tolist()
    anew = load(path, ignore_parts=True)
    metadata = replace(metadata, split=anew.recipe)
    assert anew.test is not None
    assert rows_of(Part.TEST, Path("head.hdf5"), metadata, store).tolist() == anew.test.rows.tolist()


@pytest.mark.parametrize("ignored", [False, True])
def test_an_evaluation_finds_the_test_part_beside_a_validation_store(tmp_path: Path, ignored: bool) -> None:
    parts = ("train",) * 60 + ("test",) * 12
    path = fill_store(tmp_path / "store.h5", replace(build_header(rows=72), parts=parts))
    validation = _strangers(tmp_path / "validation.h5", "validation")
    data, store = load(path, validation=validation, ignore_parts=ignored), FeatureStore(path)
    assert (data.test is not None and data.test.rows.tolist() == list(range(60, 72))) != ignored
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, split=data.recipe, versions={})
    assert data.test is not None
    assert rows_of(Part.TEST, Path("head.hdf5"), metadata, store).tolist() == data.test.rows.tolist()
    assert rows_of(Part.TRAIN, Path("head.hdf5"), metadata, store).tolist() == data.train.rows.tolist()


@pytest.mark.parametrize("own", [("test",), ("validation", "test")])
def test_the_store_that_is_trained_on_has_no_test_part_where_there_is_a_test_store(path, tmp_path, own):
    stores = {name: _strangers(tmp_path / f"{name}.h5", name) for name in own}
    data, store = load(path, **stores, ignore_parts=True), FeatureStore(path)
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, split=data.recipe, versions={})
    with pytest.raises(InputError, match="part test, found none; the head's study has none, or a store of its own for"):
        rows_of(Part.TEST, Path("head.hdf5"), metadata, store)


def _strangers(path: Path, name: str) -> Path:
    header = build_header(rows=24)
    return fill_store(path, replace(header, patients=tuple(f"{name} {patient}" for patient in header.patients)))


def test_parts_of_the_store_that_was_trained_on_say_nothing_of_its_study(path: Path) -> None:
    store = FeatureStore(path)
    metadata = HeadMetadata.of_store(store.header, store.fingerprint, versions={})
    with pytest.raises(InputError, match="split: expected how the store was split, for --part, found none; --part all"):
        rows_of(Part.TEST, Path("head.hdf5"), metadata, store)


def test_an_evaluation_on_another_store_takes_that_ones_parts(path: Path) -> None:
    store = FeatureStore(path)
    for fingerprint, split in (("f" * 64, None), ("f" * 64, SplitRecipe(0, 0.1, 0.1, "0" * 16))):
        metadata = HeadMetadata.of_store(store.header, fingerprint, split=split, versions={})
        assert rows_of(Part.VALIDATION, Path("head.hdf5"), metadata, store).tolist() == list(range(48, 60))


def test_balanced_weights_are_of_the_rows_that_are_trained_on(tmp_path: Path) -> None:
    path, header = tmp_path / "store.h5", build_header(rows=72)
    rare = [label == 0 and row >= 12 for row, label in enumerate(header.labels)]
    parts = ["test" if held else "validation" if row < 24 else "train" for row, held in enumerate(rare)]
    parts[:3] = ["train"] * 3
    header = replace(header, parts=tuple(parts))
    fill_store(path, header)
    data = load(path)
    counts, weights = np.bincount(data.train.labels), data.class_weights("balanced")
    assert counts.tolist() == [3, 12, 12, 12]
    assert counts * weights == pytest.approx([39 / 4] * 4)
    store, rows = data.all_but_test
    counts, weights = np.bincount(store.labels[rows]), data.class_weights("balanced", store.labels[rows])
    assert counts.tolist() == [3, 18, 18, 18]  # of the first class none are for the validation
    assert counts * weights == pytest.approx([57 / 4] * 4)
    assert data.class_weights("none") == [1.0] * len(counts)


def test_with_folds_labels_are_in_the_order_of_what_is_predicted(path: Path) -> None:
    data = load(path, folds=3)
    assert data.validation_labels.tolist() == [data.store.labels[row] for fold in data.folds for row in fold]
    assert data.validation_labels.tolist() != data.validation.labels.tolist()
