"""No keras.json, variable or notebook decides how heads are built: numbers are those of Keras' defaults."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras.src.backend.common import global_state

from features.runtime.backend import start_backend, use_backend
from features.runtime.errors import InputError
from features.runtime.keras_settings import (
    layer_names_from_zero,
    nothing_drawn,
    pin_settings,
    python_random_restored,
    separate_keras_session,
)

SETTINGS = {
    "image_data_format": ("channels_first", "channels_last"),
    "floatx": ("float16", "float32"),
    "epsilon": (1e-3, 1e-7),
    "dtype_policy": ("mixed_bfloat16", "float32"),
    "max_epochs": (1, None),
    "max_steps_per_epoch": (1, None),
}
START = """
import os, sys
import numpy as np
from features.runtime.backend import start_backend, use_backend
np.random.seed(3); drawn = np.random.random()
np.random.seed(3); use_backend(); start_backend()
assert np.random.random() == drawn
import keras
c = keras.config
print(c.image_data_format(), c.floatx(), c.epsilon(), c.dtype_policy().name, c.max_epochs(), c.is_nnx_enabled())
print(sys.modules["keras.src.backend.config"].keras_home() == os.environ["KERAS_HOME"])
"""


@pytest.mark.parametrize("name", SETTINGS)
def test_what_a_notebook_has_set_is_set_back_and_said(name, capsys):
    other, wanted = SETTINGS[name]
    read, put = getattr(keras.config, name), getattr(keras.config, f"set_{name}")
    put(other)
    try:
        start_backend()
        assert f"{name} {other} instead of {wanted}" in capsys.readouterr().err
        assert getattr(read(), "name", read()) == wanted
        start_backend()
        assert capsys.readouterr().err == ""
    finally:
        put(wanted)
    assert pin_settings() == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a setting of TensorFlow")
def test_what_a_notebook_has_set_to_debug_tensorflow_is_set_back_and_said(capsys):
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        start_backend()
        assert "run_functions_eagerly True instead of False" in capsys.readouterr().err
        assert not tf.config.functions_run_eagerly()
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "told",
    [
        '{"floatx": "float16", "image_data_format": "channels_first", "epsilon": 0.1, "nnx_enabled": true}',
        '{"floatx": "bfloat16", "epsilon": 1}',  # which Keras refuses to be imported with
    ],
)
def test_a_file_of_settings_is_not_read_nor_changed_its_folder_keeps_the_weights_and_numpy_its_draws(tmp_path, told):
    (tmp_path / "keras.json").write_text(told)
    told_too = {"KERAS_HOME": str(tmp_path), "KERAS_MAX_EPOCHS": "1", "KERAS_NNX_ENABLED": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", START]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | told_too, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["channels_last float32 1e-07 float32 None False", "True"]
    assert (tmp_path / "keras.json").read_text() == told
    assert [path.name for path in tmp_path.iterdir()] == ["keras.json"]


def test_an_unknown_backend_of_the_environment_is_said_to_be_its(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(InputError, match="KERAS_BACKEND: expected tensorflow or jax, found torch"):
        use_backend()


@pytest.mark.parametrize("cleared", [False, True], ids=["", "cleared within"])
def test_a_session_apart_leaves_that_of_the_thread_as_it_was(cleared):
    keras.utils.set_random_seed(7)
    keras.config.disable_interactive_logging()
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8)(inputs)
    try:
        with separate_keras_session():
            assert global_state.get_global_attribute("global_random_seed") is None
            assert keras.config.is_interactive_logging_enabled()
            assert keras.layers.Dense(2).name == "dense"
            keras.utils.set_random_seed(1)
            if cleared:
                keras.backend.clear_session()
        assert global_state.get_global_attribute("global_random_seed") == 7
        assert not keras.config.is_interactive_logging_enabled()
        assert keras.Model(inputs, keras.layers.Dense(3)(hidden)).count_params() == 67
    finally:
        keras.config.enable_interactive_logging()


def test_a_session_apart_is_one_threads_own():
    apart, seen = threading.Event(), threading.Event()

    def another() -> None:
        with separate_keras_session():
            apart.set()
            seen.wait(10)

    keras.utils.set_random_seed(7)
    thread = threading.Thread(target=another)
    thread.start()
    assert apart.wait(10)
    assert global_state.get_global_attribute("global_random_seed") == 7
    seen.set()
    thread.join()


def test_of_two_calls_at_once_the_last_one_that_ends_puts_back_what_random_draws():
    before = random.getstate()
    first, second = python_random_restored(), python_random_restored()
    first.__enter__()
    random.random()
    second.__enter__()
    first.__exit__(None, None, None)
    assert random.getstate() != before
    second.__exit__(None, None, None)
    assert random.getstate() == before


def test_names_of_layers_are_counted_anew_and_then_go_on():
    def number(name: str) -> int:
        return int(name.removeprefix("flatten").removeprefix("_") or 0)

    before = number(keras.layers.Flatten().name)
    for _ in range(2):
        with layer_names_from_zero():
            assert [keras.layers.Flatten().name for _ in range(2)] == ["flatten", "flatten_1"]
    assert number(keras.layers.Flatten().name) == before + 1


def kernel_of(initializer: str) -> np.ndarray:
    layer = keras.layers.Dense(3, kernel_initializer=initializer)
    layer.build((None, 4))
    return layer.get_weights()[0]


@pytest.mark.parametrize("initializer", ["glorot_uniform", "he_normal", "random_uniform", "truncated_normal"])
def test_where_nothing_is_drawn_one_threads_weights_are_zeros(initializer):
    with ThreadPoolExecutor() as pool, nothing_drawn():
        with nothing_drawn():
            assert not kernel_of(initializer).any()
        assert not kernel_of(initializer).any()
        assert pool.submit(kernel_of, initializer).result().all()
    assert kernel_of(initializer).all()


def test_where_nothing_is_drawn_layers_are_described_as_ever_and_take_as_many_seeds():
    before, described, drawn = random.getstate(), [], []
    for within in (nothing_drawn, nullcontext):
        random.setstate(before)
        with within(), layer_names_from_zero():
            layer = keras.layers.Dense(3)
            layer.build((None, 4))
        described.append(keras.saving.serialize_keras_object(layer))
        drawn.append(random.random())
    assert described[0] == described[1]
    assert drawn[0] == drawn[1]
