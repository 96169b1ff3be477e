"""A head that Keras itself saved names no classes: whoever has it may, and nobody guesses what they are."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest
from commands import invoke
from conftest import build_store

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads import load_head
from heads.files.head_file import read_head, read_metadata, save_head
from heads.files.metadata import HeadMetadata

CLASSES = ("cat", "cow", "dog", "owl")


def plain_head(shape: tuple[int, int, int], outputs: int = 4) -> keras.Model:
    inputs = keras.Input(shape)
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(outputs, activation="softmax")(pooled))


@pytest.fixture(params=["own.hdf5", "own.keras"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    plain_head((2, 2, 8)).save(tmp_path / request.param)
    return tmp_path / request.param


def test_four_outputs_are_the_articles_classes_only_where_its_features_are(own: Path, tmp_path: Path) -> None:
    assert read_metadata(own).classes == ("class-0", "class-1", "class-2", "class-3")
    for shape, outputs, expected in (
        ((8, 8, 2048), 4, "CNV"),
        ((8, 8, 2048), 3, "class-0"),
        ((8, 8, 512), 4, "class-0"),
    ):
        plain_head(shape, outputs).save(tmp_path / "other.hdf5")
        assert read_metadata(tmp_path / "other.hdf5").classes[0] == expected


@pytest.mark.parametrize("told", [CLASSES, list(CLASSES), "cat, cow,dog,owl"])
def test_who_has_it_names_them(own: Path, told: object) -> None:
    head = load_head(own, classes=told)
    assert head.classes == head.head.metadata.classes == CLASSES
    assert read_head(own, CLASSES).metadata == head.metadata


@pytest.mark.parametrize(
    "told", ["cat,cow,dog", "cat,cow,dog,dog", ["cat", "cow", "dog", ""], ["cat", "cow", "\u00e9", "e\u0301"], []]
)
def test_names_that_are_not_one_for_each_output_are_refused(own: Path, told: object) -> None:
    with pytest.raises(InputError, match="--classes: expected 4 different names, in label order, found "):
        load_head(own, classes=told)


def test_both_commands_take_them(own: Path, tmp_path: Path) -> None:
    store = FeatureStore(build_store(tmp_path / "store.h5", rows=24, classes=CLASSES))
    for command in ("heads.evaluate", "heads.predict"):
        assert invoke(command, own, store.path, "--classes", ",".join(CLASSES)).status == 0
    unnamed = invoke("heads.evaluate", own, store.path)
    assert unnamed.status == 2
    assert unnamed.err.endswith("; --classes names the head's outputs, where its file does not\n")
    assert '"class": "class-' in invoke("heads.predict", own, store.path, "--json").out


def test_a_head_that_names_its_own_takes_no_others(tmp_path: Path) -> None:
    metadata = HeadMetadata(classes=CLASSES, feature_shape=(2, 2, 8), versions={})
    save_head(tmp_path / "head.hdf5", plain_head((2, 2, 8)), metadata)
    said = invoke("heads.predict", tmp_path / "head.hdf5", "one.png", "--classes", "a,b,c,d")
    expected = f"none, as {tmp_path / 'head.hdf5'} names its classes"
    assert (said.status, said.err) == (2, f"error: --classes: expected {expected}, found a,b,c,d\n")
