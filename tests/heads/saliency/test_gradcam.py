"""Grad-CAM: the gradient that the backend would give, and warmth where the evidence lies."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import keras
import made_heads
import numpy as np
import pytest
from conftest import ROOT

from heads.files.head_file import read_head
from heads.files.plain_layers import ACTIVATIONS
from heads.model.build import build_head
from heads.model.spec import HeadSpec
from heads.saliency.gradcam import activation_gradient, class_activation_map, evidence

SHAPE = (4, 6, 8)
with_random_weights = partial(made_heads.with_random_weights, seed=3, spread=0.3)
some_features = partial(made_heads.some_features, shape=SHAPE)
LAYERS = keras.layers
TOPOLOGIES = [
    HeadSpec(conv_width=16, pooling=pooling, dense_layers=dense, dense_units=12, batch_norm=norm, activation=activation)
    for (pooling, dense, norm), activation in zip(
        product(("flatten", "average", "max"), (0, 1, 2), (True, False)), 6 * ("relu", "gelu", "silu"), strict=True
    )
]


def label(spec: HeadSpec) -> str:
    return f"{spec.pooling}-{spec.dense_layers}-{spec.activation}{'-norm' * spec.batch_norm}"


def by_tape(model: Any, target: str, features: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The activation of a layer and the gradient of the score less the mean score, by TensorFlow, in float64."""
    tensorflow = pytest.importorskip("tensorflow")
    double = keras.models.clone_model(model, clone_function=as_double)
    double.set_weights(model.get_weights())
    layers = {layer.name: index for index, layer in enumerate(double.layers)}
    tensor = tensorflow.constant(features, "float64")
    with tensorflow.GradientTape() as tape:
        for index, layer in enumerate(double.layers[1:], start=1):
            tensor = layer(tensor, training=False)
            if index == layers[target]:
                activation = tensor
                tape.watch(activation)
        # log(p) is the score less a number that is the same for all classes, and so is what is left of it here
        log = tensorflow.math.log(tensor)
        scores = log - tensorflow.reduce_mean(log, axis=1, keepdims=True)
        chosen = tensorflow.reduce_sum(scores * np.eye(scores.shape[1])[classes])
    return activation.numpy(), tape.gradient(chosen, activation).numpy()


def as_double(layer: Any) -> Any:
    config = layer.get_config()
    config["dtype"] = "float64"
    return type(layer).from_config(config)


def assert_same_as_tape(model: Any, target: str, features: np.ndarray) -> None:
    classes = np.arange(len(features)) % model.output_shape[-1]
    activation, gradient = activation_gradient(model, features, classes)
    expected_activation, expected = by_tape(model, target, features, classes)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(activation, expected_activation, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())


class TestGradient:
    @pytest.mark.parametrize("spec", TOPOLOGIES, ids=label)
    def test_that_of_tensorflow(self, spec: HeadSpec) -> None:
        model = with_random_weights(build_head(spec, SHAPE, 4))
        assert_same_as_tape(model, "activation", some_features())

    @pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "swish"])
    def test_of_every_activation(self, name: str) -> None:
        """After the convolution, within and beside a dense layer."""
        layers = [LAYERS.Conv2D(5, 1, activation="tanh", name="conv"), LAYERS.Flatten(), LAYERS.Dense(9), act(name)]
        layers += [LAYERS.Dense(7, activation=name), LAYERS.Dense(3, activation="softmax")]
        assert_same_as_tape(chain(layers), "conv", some_features())

    def test_of_layers_that_foreign_heads_have(self) -> None:
        layers = [LAYERS.Conv2D(6, 3, name="first"), LAYERS.Conv2D(5, 1, name="conv"), LAYERS.BatchNormalization()]
        layers += [LAYERS.ReLU(max_value=1.2, negative_slope=0.1, threshold=0.2, name="bend"), LAYERS.Flatten()]
        layers += [LAYERS.Dense(8), LAYERS.BatchNormalization(), LAYERS.ReLU(), LAYERS.Dropout(0.5), LAYERS.Softmax()]
        layers += [LAYERS.Dense(4), LAYERS.Softmax(), LAYERS.Dropout(0.2)]
        assert_same_as_tape(chain(layers), "bend", some_features())

    def test_without_a_convolution_it_is_that_of_the_features(self) -> None:
        layers = [LAYERS.Flatten(name="flat"), LAYERS.Dense(4, activation="softmax", name="out")]
        model = chain(layers)
        activation, gradient = activation_gradient(model, some_features(), 2)
        np.testing.assert_array_equal(activation, some_features().astype(np.float32))
        kernel = model.get_layer("out").get_weights()[0]
        expected = (kernel[:, 2] - kernel.mean(axis=1)).reshape(SHAPE)
        np.testing.assert_allclose(gradient, np.broadcast_to(expected, gradient.shape), atol=1e-6)

    def test_straight_from_pooling_to_softmax(self) -> None:
        layers = [LAYERS.Conv2D(3, 1, name="conv"), LAYERS.GlobalAveragePooling2D(), act("softmax")]
        gradient = activation_gradient(chain(layers), some_features(2), 1)[1]
        expected = np.broadcast_to(np.array([-1, 2, -1]) / 3 / (SHAPE[0] * SHAPE[1]), gradient.shape)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)

    def test_equal_maxima_share(self) -> None:
        """After ReLU whole channels are 0: no place of them is more the maximum than another."""
        layers = [LAYERS.Conv2D(5, 1, activation="relu", name="conv"), LAYERS.GlobalMaxPooling2D()]
        model = chain([*layers, LAYERS.Dense(3, activation="softmax")])
        assert_same_as_tape(model, "conv", -some_features())

    @pytest.mark.slow
    def test_on_jax(self) -> None:
        """One process has one backend: the same formulas beside ``jax.grad``."""
        pytest.importorskip("jax")
        environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        root = ROOT
        done = subprocess.run(
            [sys.executable, "-c", ON_JAX], env=environment, cwd=root, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


ON_JAX = """
import jax, keras, numpy as np
from heads.saliency.gradcam import activation_gradient
from heads.model.build import build_head
from heads.model.spec import HeadSpec

assert keras.backend.backend() == "jax"
features = np.random.default_rng(0).uniform(0, 2, (3, 4, 6, 8)).astype(np.float16)
for pooling, activation in (("flatten", "gelu"), ("average", "silu"), ("max", "relu")):
    spec = HeadSpec(conv_width=16, pooling=pooling, dense_layers=2, dense_units=8, activation=activation)
    model = build_head(spec, (4, 6, 8), 4, seed=1)
    names = [layer.name for layer in model.layers]
    after = model.layers[names.index("activation") + 1 : -1]
    last = model.layers[-1]

    def score(tensor):
        for layer in after:
            tensor = layer(tensor, training=False)
        scores = tensor @ last.kernel.value + last.bias.value
        return (scores[:, 2] - scores.mean(axis=1)).sum()

    found, gradient = activation_gradient(model, features, 2)
    np.testing.assert_allclose(gradient, jax.grad(score)(jax.numpy.asarray(found)), rtol=1e-4, atol=1e-6)
    assert np.abs(gradient).max() > 0
"""


class TestMap:
    @pytest.mark.parametrize("spec", TOPOLOGIES, ids=label)
    def test_lies_where_the_evidence_lies(self, spec: HeadSpec) -> None:
        """Every image has evidence for both classes, each in a quadrant of its own."""
        model = build_head(spec, (6, 6, 8), 2, seed=4)
        model.set_weights(planted_weights(spec, model.get_weights()))
        features = np.random.default_rng(0).uniform(0, 0.1, (32, 6, 6, 8))
        features[:, 0:2, 1:3, 0] += 2
        features[:, 4:6, 3:5, 1] += 2
        maps = {index: class_activation_map(model, features, index) for index in (0, 1)}
        for index, quadrant in ((1, np.s_[:, :3, :3]), (0, np.s_[:, 3:, 3:])):
            inside = maps[index][quadrant].sum(axis=(1, 2)) / maps[index].sum(axis=(1, 2))
            assert inside.min() > 0.7  # a quarter, were it blind
            np.testing.assert_array_equal(maps[index][quadrant].max(axis=(1, 2)), 1)

    @pytest.mark.parametrize("spec", [spec for spec in TOPOLOGIES if spec.pooling == "average"][::2], ids=label)
    def test_lies_where_a_head_has_learnt_to_look(self, spec: HeadSpec) -> None:
        """Class 1 has a pattern in the upper left quadrant, class 0 another one beside it."""
        features, labels = patterns(256, seed=0)
        model = build_head(spec, features.shape[1:], 2, seed=4)
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False)
        model.fit(features, labels, batch_size=64, epochs=12, shuffle=False, verbose=0)
        features, labels = patterns(64, seed=1)
        called = keras.ops.convert_to_numpy(model(features, training=False)).argmax(1)
        assert (called == labels).mean() >= 0.95
        maps = class_activation_map(model, features[labels == 1], 1)
        inside = maps[:, :3, :3].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
        assert inside.mean() > 0.7

    def test_one_and_many(self) -> None:
        model = with_random_weights(build_head(HeadSpec(conv_width=16), SHAPE, 4))
        features, classes = some_features(4), np.array([2, 0, 3, 1])
        many = class_activation_map(model, features, classes)
        assert (many.shape, many.dtype) == ((4, *SHAPE[:2]), np.float32)
        assert many.min() >= 0
        np.testing.assert_array_equal(many.max(axis=(1, 2)), 1)
        for one, image, index in zip(many, features, classes, strict=True):
            np.testing.assert_allclose(class_activation_map(model, image, int(index)), one, atol=1e-5)
        assert np.abs(many[0] - class_activation_map(model, features[0], 1)).max() > 0.01

    def test_nothing_speaks_for_it(self) -> None:
        model = build_head(HeadSpec(conv_width=16, batch_norm=False), SHAPE, 2)
        conv, kernel, bias = model.get_weights()
        model.set_weights([conv, np.abs(kernel) * [1, -1], bias])
        np.testing.assert_array_equal(class_activation_map(model, some_features(), 1), 0)
        assert class_activation_map(model, some_features(), 0).min(axis=(1, 2)).max() > 0

    @pytest.mark.parametrize("spec", [spec for spec in TOPOLOGIES if spec.dense_layers < 2], ids=label)
    def test_depends_on_nothing_that_probabilities_do_not_show(self, spec: HeadSpec) -> None:
        """Softmax takes away what all scores share; the bare gradient would be full of it."""
        model = with_random_weights(build_head(spec, SHAPE, 4))
        maps, probabilities = class_activation_map(model, some_features(), 2), np.asarray(model(some_features()))
        *rest, kernel, bias = model.get_weights()
        shared = np.random.default_rng(5).normal(0, 3, (len(kernel), 1))
        model.set_weights([*rest, kernel + shared, bias])
        np.testing.assert_allclose(np.asarray(model(some_features())), probabilities, atol=1e-5)
        np.testing.assert_allclose(class_activation_map(model, some_features(), 2), maps, atol=1e-3)

    def test_average_pooling_splits_the_score_exactly(self) -> None:
        """With one linear layer after average pooling the map before clipping is the score, place by place (CAM)."""
        model = with_random_weights(build_head(HeadSpec(conv_width=16, pooling="average", dropout=0.0), SHAPE, 3))
        activation, _ = activation_gradient(model, some_features(), 1)
        kernel, bias = model.layers[-1].get_weights()
        scores = activation.mean(axis=(1, 2)) @ kernel + bias
        found = evidence(model, some_features(), 1).sum(axis=(1, 2)) + bias[1] - bias.mean()
        np.testing.assert_allclose(found, scores[:, 1] - scores.mean(axis=1), atol=1e-5)

    def test_of_the_articles_file(self, article_file: Path) -> None:
        head = read_head(article_file)
        features = some_features(3, shape=(8, 8, 2048))
        maps = class_activation_map(head.model, features, np.array([0, 1, 3]))
        assert maps.shape == (3, 8, 8)
        assert np.isfinite(maps).all()
        assert maps.max() == 1
        classes = np.arange(3)
        activation, gradient = activation_gradient(head.model, features, classes)
        expected_activation, expected = by_tape(head.model, "activation_1", features, classes)
        np.testing.assert_allclose(activation, expected_activation, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def planted_weights(spec: HeadSpec, weights: list[np.ndarray]) -> list[np.ndarray]:
    """Feature 0 speaks for class 1 and feature 1 for class 0, through every layer; all else is small and random."""
    conv, *rest = weights
    statistics, dense = (rest[:3], rest[3:]) if spec.batch_norm else ([], rest)
    conv, *kernels = (array * 0.02 for array in (conv, *dense[::2]))
    conv[..., [0, 1], [0, 1]] += 1
    for number, kernel in enumerate(kernels):
        by_place = kernel.reshape(-1, spec.conv_width if number == 0 else len(kernel), kernel.shape[1])
        for sign in (0, 1):
            by_place[:, sign, 1 - sign if kernel is kernels[-1] else sign] += 1
    biases = dense[1::2]
    return [conv, *statistics, *(array for pair in zip(kernels, biases, strict=True) for array in pair)]


def patterns(rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and a bright channel of four places: channel 1 in the upper left quadrant, or channel 0 beside it."""
    generator = np.random.default_rng(seed)
    features = generator.uniform(0, 0.1, (rows, 6, 6, 8)).astype(np.float32)
    labels = generator.integers(0, 2, rows)
    for image, index in zip(features, labels, strict=True):
        row, column = generator.integers(0, 2, 2)
        column += 3 * (index == 0)
        image[row : row + 2, column : column + 2, index] += 2
    return features, labels


def act(name: str) -> Any:
    return LAYERS.Activation(name)


def chain(layers: list[Any]) -> Any:
    inputs = keras.Input(SHAPE)
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    return with_random_weights(keras.Model(inputs, outputs))
