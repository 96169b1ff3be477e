"""``heads.predict`` on the rows of a store; what needs an image is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import invoke
from conftest import CLASSES, build_features, build_header, build_store

from features.compression.compression import compress_store
from features.store.reader import FeatureStore
from heads.files.head_file import read_head, save_head
from heads.files.metadata import HeadMetadata
from heads.loaded import load_head
from heads.metrics.calibration import with_temperature
from heads.model.build import build_head
from heads.model.spec import HeadSpec
from heads.prediction import stored


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors and a head of them; a store of maps."""
    folder = tmp_path_factory.mktemp("stored")
    header = build_header(rows=24)
    vectors = build_features(header).astype("float32").mean((1, 2, 3))
    store = FeatureStore.from_arrays(folder / "v.h5", vectors, np.array(CLASSES)[list(header.labels)])
    build_store(folder / "maps.h5", rows=24, skipped=[2])
    for name, opened in {"head": store, "maps": FeatureStore(folder / "maps.h5")}.items():
        metadata = HeadMetadata.of_store(opened.header, opened.fingerprint, versions={})
        model = build_head(HeadSpec(conv_width=16), opened.header.feature_shape, 4)
        save_head(folder / f"{name}.hdf5", model, metadata)
    return folder


def test_rows_have_the_probabilities_of_the_model(place):
    head, store = load_head(place / "head.hdf5"), FeatureStore(place / "v.h5")
    table = head.predict(store, progress=False)
    expected = np.asarray(head.model(store.take(np.arange(24), 0)))
    np.testing.assert_allclose(table[list(CLASSES)].to_numpy(), expected, atol=1e-6)
    assert table["path"].tolist() == list(store.header.paths)
    said = invoke("heads.predict", place / "head.hdf5", place / "v.h5", "--json")
    assert said.status == 0
    assert [row["class"] for row in json.loads(said.out)] == table["class"].tolist()


def test_the_store_that_was_checked_is_the_one_that_is_predicted(place, monkeypatch):
    opened = []

    class Opened(FeatureStore):
        def __init__(self, path):
            opened.append(path)
            super().__init__(path)

    monkeypatch.setattr(stored, "FeatureStore", Opened)
    assert invoke("heads.predict", place / "head.hdf5", place / "v.h5").status == 0
    assert opened == [str(place / "v.h5")]


def test_rows_are_calibrated_as_images_are(place, tmp_path):
    plain, store = read_head(place / "head.hdf5"), FeatureStore(place / "v.h5")
    save_head(tmp_path / "warm.hdf5", plain.model, replace(plain.metadata, temperature=2.5))
    tables = [load_head(path).predict(store, progress=False) for path in (place / "head.hdf5", tmp_path / "warm.hdf5")]
    before, after = (table[list(CLASSES)].to_numpy() for table in tables)
    np.testing.assert_allclose(after, with_temperature(before, 2.5), atol=1e-6)
    assert (after.max(axis=1) < before.max(axis=1)).all()


def test_a_row_without_features_has_its_reason(place):
    said = invoke("heads.predict", place / "maps.hdf5", place / "maps.h5", "--json")
    assert said.status == 1
    rows = json.loads(said.out)
    assert [number for number, row in enumerate(rows) if row["error"]] == [2]


def test_a_row_that_the_head_makes_no_numbers_of_has_its_reason(place, tmp_path):
    features = np.full((4, 8), 0.5, np.float32)
    features[1] = 3e38
    store = FeatureStore.from_arrays(tmp_path / "large.h5", features, np.array(CLASSES))
    model = read_head(place / "head.hdf5").model
    save_head(tmp_path / "head.hdf5", model, HeadMetadata.of_store(store.header, store.fingerprint, versions={}))
    said = invoke("heads.predict", tmp_path / "head.hdf5", tmp_path / "large.h5", "--json")
    assert said.status == 1
    rows = json.loads(said.out, parse_constant=pytest.fail)
    assert [row["error"] for row in rows] == [None, "the head's probabilities are not finite", None, None]
    assert rows[1]["class"] is None


def test_a_store_in_other_directions_than_the_heads_is_predicted_with_a_note(place, tmp_path):
    for name in ("own", "other"):
        compress_store(place / "maps.h5", tmp_path / f"{name}.h5", channels=2 if name == "own" else 3)
    plain = read_head(place / "maps.hdf5")
    own = FeatureStore(tmp_path / "own.h5").header.projection
    assert own is not None
    save_head(tmp_path / "head.hdf5", plain.model, replace(plain.metadata, projection=own.digest))
    said = {name: invoke("heads.predict", tmp_path / "head.hdf5", tmp_path / f"{name}.h5") for name in ("own", "other")}
    lost = "holds 3 of 8 channels, other directions than the head was trained in: what it makes of the rest is lost"
    assert "note:" not in said["own"].err
    assert f"note: {tmp_path / 'other.h5'}: {lost}" in said["other"].err
    assert lost in invoke("heads.evaluate", tmp_path / "head.hdf5", tmp_path / "other.h5").err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v.h5 --heatmaps maps", "--heatmaps: expected images, found "),
        ("v.h5 --backbone vgg16", "--backbone: expected images, found "),
        ("maps.h5", "{at}/maps.h5: feature_shape: expected (1, 1, 8) as {at}/head.hdf5, found (2, 2, 8)"),
        ("a.png", "{at}/head.hdf5: backbone: expected one that makes features of images, found none: it was trained"),
    ],
)
def test_what_does_not_go_together(place, line, message):
    words = [
        str(place / word) if word.endswith((".h5", ".png", "maps")) and word[0] != "-" else word
        for word in line.split()
    ]
    said = invoke("heads.predict", place / "head.hdf5", *words)
    assert (said.status, said.out) == (2, "")
    assert said.err.splitlines()[-1].startswith(f"error: {message.format(at=place)}")
