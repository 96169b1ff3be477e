"""Heads in .keras files: read as data, and refused in one line where they are anything else."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT
from limited_files import largest_file

from features.runtime.backend import start_backend
from features.runtime.errors import BottleneckError, InputError
from heads.files.formats import probabilities_of
from heads.files.head_file import read_head, read_metadata, save_head
from heads.files.keras_archive import CONFIG, WEIGHTS
from heads.files.metadata import IMAGE_MODEL, KIND, file_attributes
from heads.files.metadata_json import NAME, as_attributes, to_json
from heads.model.build import build_head
from heads.model.spec import HeadSpec

ARCHIVES = ROOT / "tests" / "archives"
SHAPE = (2, 2, 8)


def some_rows() -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 2, (5, *SHAPE)).astype(np.float32)


def save(path: Path, *, like: str = "refit", kind: str = KIND) -> Path:
    start_backend()
    head = read_head(ARCHIVES / f"{like}.hdf5")
    head.model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(NAME, to_json(file_attributes(head.metadata, kind)))
    return path


def edited(path: Path, member: str, change: Callable[[bytes], bytes | None]) -> Path:
    """The archive with one member changed, or left out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    made = change(members.pop(member, b""))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (members | ({} if made is None else {member: made})).items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("like", ["head", "refit", "ensemble"])
def test_it_is_the_head_that_the_hdf5_file_is(like, tmp_path):
    path, expected = save(tmp_path / "head.keras", like=like), read_head(ARCHIVES / f"{like}.hdf5")
    found = read_head(path)
    assert found.metadata == expected.metadata == read_metadata(path)
    assert [weights.shape for weights in found.model.get_weights()] == [
        weights.shape for weights in expected.model.get_weights()
    ]
    np.testing.assert_array_equal(
        probabilities_of(found.model, some_rows()), probabilities_of(expected.model, some_rows())
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_a_plain_one_of_somebody_else_is_read_without_names(compiled, tmp_path):
    start_backend()
    model = build_head(HeadSpec(conv_width=16, dense_layers=1), SHAPE, 3)
    if compiled:
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(some_rows(), np.zeros(5), verbose=0)
    model.save(tmp_path / "head.keras")
    found = read_head(tmp_path / "head.keras")
    assert (len(found.metadata.classes), found.metadata.backbone) == (3, "unknown")
    np.testing.assert_array_equal(probabilities_of(found.model, some_rows()), probabilities_of(model, some_rows()))


def test_code_in_it_is_not_run(tmp_path):
    start_backend()
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(keras.layers.Lambda(abs)(inputs)))
    keras.Model(inputs, outputs).save(tmp_path / "head.keras")
    with pytest.raises(InputError, match=r"head\.keras: layer .*lambda.*expected one of .*, found Lambda"):
        read_head(tmp_path / "head.keras")


REFUSED: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "no configuration": (CONFIG, lambda _: None, "found a ZIP archive that is no .keras file"),
    "no weights": (WEIGHTS, lambda _: None, "model.weights.h5: expected a member of that name, found none"),
    "other weights": (
        WEIGHTS,
        lambda _: b"not HDF5",
        "model.weights.h5: expected weights as Keras saves them, found ",
    ),
    "damaged JSON": (NAME, lambda text: text[:-5], "head.json: expected a JSON object, found something else"),
    "a list": (NAME, lambda _: b"[1, 2]", "head.json: expected a JSON object, found something else"),
    "another shape": (NAME, lambda text: text.replace(b"2,\n    2,\n    8", b"2,\n    2,\n    9"), "feature_shape: "),
    "a strange value": (
        *(NAME, lambda text: json.dumps(json.loads(text) | {"classes": [["A"]]}).encode()),
        "head.json: classes: expected a value that fits, found [['A']]",
    ),
    "another schema": (
        *(NAME, lambda text: json.dumps(json.loads(text) | {"schema": 2}).encode()),
        "schema: expected 1, found ",
    ),
    "too much": (CONFIG, lambda text: text + b" " * 2**24, "config.json: expected at most 16777216 bytes, found "),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_does_not_fit_is_said_in_one_line(which, tmp_path):
    member, change, said = REFUSED[which]
    path = edited(save(tmp_path / "head.keras"), member, change)
    with pytest.raises(InputError) as caught:
        read_head(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_from_image_to_class_is_no_head(tmp_path):
    with pytest.raises(InputError, match="found a model from image to class; search"):
        read_metadata(save(tmp_path / "head.keras", kind=IMAGE_MODEL))


def test_cut_short_it_is_refused(tmp_path):
    content = save(tmp_path / "head.keras").read_bytes()
    for length in range(10, len(content), len(content) // 10):
        (tmp_path / "cut.keras").write_bytes(content[:length])
        with pytest.raises(InputError, match=r"cut\.keras: "):
            read_head(tmp_path / "cut.keras")


def test_without_room_for_temporary_files_a_sound_one_is_not_called_damaged(tmp_path, monkeypatch):
    path = save(tmp_path / "head.keras")
    with largest_file(1000), pytest.raises(BottleneckError, match="larger than a file may be") as full:
        read_head(path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(BottleneckError, match="gone: cannot be written: No such file") as gone:
        read_head(path)
    for told in (full, gone):
        assert told.value.exit_status == 1
        assert "head.keras" not in str(told.value)


def test_two_threads_may_each_be_reading_one():
    with as_attributes(Path("a.keras"), '{"kind": "head"}') as one, as_attributes(Path("b.keras"), None) as other:
        assert (dict(one.attrs), dict(other.attrs)) == ({"kind": "head"}, {})


def test_the_json_says_what_the_attributes_say(tmp_path):
    told = json.loads(to_json(file_attributes(read_metadata(ARCHIVES / "head.hdf5"), KIND)))
    again = read_metadata(ARCHIVES / "head.hdf5")
    assert told["classes"] == list(again.classes)
    assert told["spec"] == again.spec.to_dict()
    assert (told["kind"], told["schema"], told["trial"]) == ("head", 1, again.trial)
    start_backend()
    model = read_head(ARCHIVES / "head.hdf5").model
    save_head(tmp_path / "head.hdf5", model, replace(again, value=0.5))
    assert read_metadata(tmp_path / "head.hdf5").value == 0.5
