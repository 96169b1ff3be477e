"""What is used of Keras' insides is there and does what is expected of it; on an upgrade this says what broke."""

from __future__ import annotations

import inspect
import re

import h5py
import keras
import numpy as np
import pytest
from conftest import ROOT

from heads.model.build import build_head
from heads.model.keras_internals import OneReplicaAdam, OneReplicaSGD, save_model_to_hdf5, write_model
from heads.model.spec import HeadSpec

SHAPE = (2, 2, 8)
INSIDE = re.compile(r"keras\.src\b|_all_reduce_sum_gradients")


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
