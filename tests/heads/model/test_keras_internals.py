"""What is used of Keras' insides is there and does what is expected of it; on an upgrade this says what broke."""

from __future__ import annotations

import inspect
import re
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT
from keras.src.legacy.saving import json_utils
from keras.src.saving import serialization_lib
from keras.src.utils import module_utils, rng_utils

from heads.files.formats import format_of
from heads.files.head_file import file_image
from heads.files.plain_layers import parse_model
from heads.model import keras_internals
from heads.model.build import build_head
from heads.model.keras_internals import (
    OneReplicaAdam,
    OneReplicaSGD,
    architecture,
    save_model_to_hdf5,
    write_model,
)
from heads.model.spec import HeadSpec
from heads.model.stepwise import seeded

SHAPE = (2, 2, 8)
INSIDE = re.compile(r"keras\.src\b|_all_reduce_sum_gradients|tensorflow\._available")


def test_nothing_else_reaches_inside() -> None:
    reaching = [path for path in (ROOT / "heads").rglob("*.py") if INSIDE.search(path.read_text(encoding="utf-8"))]
    assert [path.name for path in reaching] == ["keras_internals.py"]


def test_the_hdf5_writer_takes_an_open_file_and_leaves_the_optimizer_out() -> None:
    parameters = list(inspect.signature(save_model_to_hdf5).parameters)
    assert parameters[:2] == ["model", "filepath"]
    assert "include_optimizer" in parameters


def test_what_it_writes_is_what_model_save_writes(tmp_path) -> None:
    model = build_head(HeadSpec(conv_width=16), SHAPE, 3)
    model.save(tmp_path / "public.hdf5", include_optimizer=False)
    with h5py.File(tmp_path / "ours.hdf5", "w") as file:
        write_model(model, file)
    with h5py.File(tmp_path / "public.hdf5") as public, h5py.File(tmp_path / "ours.hdf5") as ours:
        assert {**public.attrs} == {**ours.attrs}
        names: list[str] = []
        public.visit(names.append)
        found: list[str] = []
        ours.visit(found.append)
        assert names == found
    features = np.random.default_rng(0).normal(size=(3, *SHAPE)).astype(np.float32)
    read = keras.models.load_model(tmp_path / "ours.hdf5", compile=False)
    np.testing.assert_array_equal(read(features), model(features))


def test_two_threads_may_each_be_writing_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    model, write, images = build_head(HeadSpec(conv_width=16), SHAPE, 3), keras_internals.write_model, []

    def meanwhile(model: keras.Model, file: h5py.File) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(keras_internals, "write_model", write)
            images.append(file_image(model, {}))
        write(model, file)

    monkeypatch.setattr(keras_internals, "write_model", meanwhile)
    assert [file_image(model, {})] == images


def test_keras_asks_for_tensorflow_by_the_name_that_is_hidden() -> None:
    theirs = module_utils.LazyModule("json")
    assert theirs._available is None
    assert theirs.available
    theirs._available = False
    assert not theirs.available
    assert serialization_lib.tf is json_utils.tf is rng_utils.tf is module_utils.tensorflow


def test_where_nobody_has_imported_tensorflow_a_head_is_written_and_drawn_without(monkeypatch, tmp_path) -> None:
    model, theirs = build_head(HeadSpec(conv_width=16), SHAPE, 3), module_utils.tensorflow
    before = theirs._available
    monkeypatch.setattr(theirs, "_available", None)
    monkeypatch.setattr(theirs, "initialize", lambda: pytest.fail("Keras imports TensorFlow"))
    monkeypatch.setattr(keras_internals, "sys", SimpleNamespace(modules={}))
    path = tmp_path / "a.keras"
    with seeded(1):
        file_image(model, {})
        parse_model(path, architecture(model))
        format_of(path).write(path, model, {})
        format_of(path).predict(path, np.zeros((1, *SHAPE), np.float32))
    assert theirs._available is None
    monkeypatch.undo()
    assert theirs._available is before


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow sums over replicas")
def test_adam_has_the_method_that_is_replaced_and_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = getattr(keras.optimizers.Adam, "_all_reduce_sum_gradients", None)
    assert theirs is not None, "Keras' Adam no longer sums gradients by this name: see whether traces are still kept"
    assert list(inspect.signature(theirs).parameters) == ["self", "grads_and_vars"]
    calls: list[int] = []

    def count(self, grads_and_vars):
        calls.append(len(grads_and_vars))
        return grads_and_vars

    monkeypatch.setattr(OneReplicaAdam, "_all_reduce_sum_gradients", count)
    trained(OneReplicaAdam)
    assert calls, "Keras' Adam no longer calls the method that is replaced here"


@pytest.mark.parametrize("optimizer", [OneReplicaAdam, OneReplicaSGD])
def test_without_the_sum_it_is_the_same(optimizer: type) -> None:
    theirs = {OneReplicaAdam: keras.optimizers.Adam, OneReplicaSGD: keras.optimizers.SGD}[optimizer]
    for one, other in zip(trained(optimizer), trained(theirs), strict=True):
        np.testing.assert_array_equal(one, other)


def trained(optimizer: type) -> list[np.ndarray]:
    model = build_head(HeadSpec(conv_width=16, dropout=0.0), SHAPE, 3)
    model.compile(optimizer=optimizer(1e-2), loss="categorical_crossentropy", jit_compile=False)
    features = np.random.default_rng(0).normal(size=(12, *SHAPE)).astype(np.float32)
    model.fit(
        features, np.eye(3, dtype=np.float32)[np.arange(12) % 3], epochs=2, batch_size=4, shuffle=False, verbose=0
    )
    return model.get_weights()
