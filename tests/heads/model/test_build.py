"""A spec becomes the model that it says; the default is the article's head."""

from __future__ import annotations

from itertools import cycle

import h5py
import keras
import numpy as np
import pytest

from heads.files.head_file import read_head
from heads.model.build import build_head
from heads.model.spec import ACTIVATIONS, POOLINGS, HeadSpec
from heads.model.weights import dense_shapes, initial_weights

SHAPE = (2, 3, 8)
SPECS = [
    HeadSpec(conv_width=16, pooling=pooling, activation=activation, dense_layers=layers, batch_norm=layers != 1)
    for pooling, activation, layers in zip(POOLINGS, cycle(ACTIVATIONS), cycle((0, 1, 2)), strict=False)
]


def described(model: keras.Model) -> list[tuple[str, tuple[int, ...], list[tuple[int, ...]]]]:
    """(class, output shape, weight shapes) of every layer."""
    return [(type(one).__name__, tuple(one.output.shape), [w.shape for w in one.weights]) for one in model.layers]


def test_the_default_is_the_articles_head(article_file) -> None:
    theirs, ours = read_head(article_file).model, build_head(HeadSpec(), (8, 8, 2048), 4)
    assert described(ours) == described(theirs)
    assert ours.count_params() == 147_652
    options = {
        "Conv2D": ("use_bias", "strides", "activation"),
        "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
        "Activation": ("activation",),
        "Dropout": ("rate",),
        "Dense": ("activation", "use_bias"),
    }
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        for name in options.get(type(one).__name__, ()):
            same = {-1: 3}  # the last of four axes
            mine, articles = one.get_config()[name], other.get_config()[name]
            assert same.get(mine, mine) == same.get(articles, articles) if name == "axis" else mine == articles


def test_the_articles_weights_fit_without_change(article_file) -> None:
    ours, theirs = build_head(HeadSpec(), (8, 8, 2048), 4), read_head(article_file).model
    ours.set_weights(theirs.get_weights())
    features = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 2048)).astype(np.float16)
    np.testing.assert_array_equal(ours(features), theirs(features))
    with h5py.File(article_file) as file:  # and they are the file's
        np.testing.assert_array_equal(ours.get_layer("conv").kernel, file["model_weights/conv2d_1/conv2d_1/kernel:0"])


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.pooling)
def test_weights_are_as_told(spec: HeadSpec) -> None:
    model = build_head(spec, SHAPE, 4, seed=3)
    for built, drawn in zip(model.get_weights(), initial_weights(spec, SHAPE, 4, seed=3), strict=True):
        np.testing.assert_array_equal(built, drawn)
    dense = [one for one in model.layers if isinstance(one, keras.layers.Dense)]
    assert [tuple(one.kernel.shape) for one in dense] == dense_shapes(spec, SHAPE, 4)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.pooling)
def test_computes_what_the_spec_says(spec: HeadSpec) -> None:
    """Against NumPy, with every weight a random number."""
    model = build_head(spec, SHAPE, 4)
    generator = np.random.default_rng(5)
    model.set_weights([generator.uniform(0.1, 1, array.shape) for array in model.get_weights()])
    features = generator.uniform(-1, 1, (6, *SHAPE))
    weights = iter([array.astype(float) for array in model.get_weights()])
    values = features @ next(weights)[0, 0]
    if spec.batch_norm:
        beta, mean, variance = next(weights), next(weights), next(weights)
        values = (values - mean) / np.sqrt(variance + 1e-3) + beta
    values = _activated(spec.activation, values)
    average, highest = values.mean((1, 2)), values.max((1, 2))
    pooled = {
        "flatten": values.reshape(6, -1),
        "average": average,
        "max": highest,
        "concat": np.concatenate([average, highest], axis=1),
        "gem": np.sqrt(np.square(np.maximum(values, 0)).mean((1, 2))),
    }
    values = pooled[spec.pooling]
    for layer in range(spec.dense_layers + 1):
        values = values @ next(weights) + next(weights)
        if layer < spec.dense_layers:
            values = _activated(spec.activation, values)
    exponentials = np.exp(values - values.max(1, keepdims=True))
    expected = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(model(features.astype(np.float32), training=False), expected, atol=1e-5)


def _activated(name: str, values: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    made = {
        "linear": values,
        "relu": np.maximum(values, 0),
        "gelu": values * (1 + erf(values / np.sqrt(2))) / 2,
        "silu": values / (1 + np.exp(-values)),
    }
    return made[name]


def test_first_weights() -> None:
    spec = HeadSpec(conv_width=64, dense_layers=1, dense_units=32)
    weights = initial_weights(spec, (4, 4, 512), 4, seed=9)
    for kernel in (weights[0][0, 0], weights[4], weights[6]):
        limit = np.sqrt(6 / sum(kernel.shape))
        assert np.abs(kernel).max() <= limit
        assert np.abs(kernel).max() > 0.9 * limit
        assert abs(kernel.mean()) < 0.05 * limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
    assert [array.mean() for array in weights[1:4]] == [0, 0, 1]
    other = initial_weights(spec, (4, 4, 512), 4, seed=10)
    assert not np.array_equal(weights[0], other[0])


def test_dropout_is_for_training_only_and_follows_the_seed() -> None:
    spec = HeadSpec(conv_width=16, dense_layers=1, dense_dropout=0.5)
    features = np.random.default_rng(0).uniform(0, 1, (4, *SHAPE)).astype(np.float32)
    first, second, other = (build_head(spec, SHAPE, 4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first(features), second(features))
    trained = np.asarray(first(features, training=True))
    np.testing.assert_array_equal(trained, second(features, training=True))
    assert not np.allclose(trained, first(features))
    other.set_weights(first.get_weights())
    assert not np.allclose(trained, other(features, training=True))
    assert not [one for one in build_head(HeadSpec(dropout=0.0), SHAPE, 4).layers if "dropout" in one.name]


@pytest.mark.usefixtures("nothing_to_draw")
def test_weights_that_are_given_are_not_drawn_before(tmp_path):
    for number, spec in enumerate(SPECS):
        model, path = build_head(spec, SHAPE, 3, seed=1), tmp_path / f"{number}.keras"
        model.save(path)
        for one, other in zip(read_head(path).model.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
