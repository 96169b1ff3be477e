"""HeadSpec to plain Keras model, and its first weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from heads.spec import HeadSpec

BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1e-3

Weights = list[npt.NDArray[np.float32]]
"""The arrays of a head in the order of ``model.get_weights()``."""


def dense_shapes(spec: HeadSpec, feature_shape: tuple[int, int, int], classes: int) -> list[tuple[int, int]]:
    """Returns (inputs, units) of every dense layer, the softmax layer last."""
    height, width, _ = feature_shape
    inputs = spec.conv_width * (height * width if spec.pooling == "flatten" else 1)
    units = [*[spec.dense_units] * spec.dense_layers, classes]
    return list(zip([inputs, *units[:-1]], units, strict=True))


def initial_weights(spec: HeadSpec, feature_shape: tuple[int, int, int], classes: int, *, seed: int) -> Weights:
    """Draws a head's first weights with NumPy, so that they are the same on every backend and in the fused bank.

    Args:
        spec: The head.
        feature_shape: (height, width, channels) of one bottleneck.
        classes: Number of classes.
        seed: Decides the draw; any whole number of at least 0.

    Returns:
        float32 arrays in the order of ``model.get_weights()``: convolution (1, 1, channels, conv_width), with batch
        norm its beta, moving mean and moving variance (conv_width,), then kernel (inputs, units) and bias (units,)
        of each dense layer. Kernels are glorot uniform, moving variances 1, all others 0.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    width = spec.conv_width
    weights = [_glorot_uniform(generator, (1, 1, feature_shape[2], width))]
    if spec.batch_norm:
        weights += [np.zeros(width, np.float32), np.zeros(width, np.float32), np.ones(width, np.float32)]
    for inputs, units in dense_shapes(spec, feature_shape, classes):
        weights += [_glorot_uniform(generator, (inputs, units)), np.zeros(units, np.float32)]
    return weights


def _glorot_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    # The receptive field of a 1x1 convolution is 1, so the fans are the last two axes as for a dense layer.
    limit = math.sqrt(6 / (shape[-2] + shape[-1]))
    return generator.uniform(-limit, limit, shape).astype(np.float32)


def build_head(spec: HeadSpec, feature_shape: tuple[int, int, int], classes: int, *, seed: int = 0) -> keras.Model:
    """Builds a head as a plain, uncompiled Functional model of built-in layers.

    Args:
        spec: The head.
        feature_shape: (height, width, channels) of one bottleneck.
        classes: Number of classes.
        seed: Decides the first weights (see ``initial_weights``) and the dropout masks.

    Returns:
        Model from (batch, height, width, channels), cast to float32, to class probabilities (batch, classes).
    """
    inputs = keras.Input(feature_shape, dtype="float32", name="features")
    outputs = inputs
    for layer in _layers(spec, classes, seed):
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs, name="head")
    model.set_weights(initial_weights(spec, feature_shape, classes, seed=seed))
    return model


def _layers(spec: HeadSpec, classes: int, seed: int) -> Iterator[Any]:
    layers = keras.layers
    mask_seeds = np.random.SeedSequence([seed, 1]).generate_state(1 + spec.dense_layers).tolist()
    yield layers.Conv2D(spec.conv_width, 1, use_bias=False, dtype="float32", name="conv")
    if spec.batch_norm:
        yield layers.BatchNormalization(
            scale=False,
            momentum=BATCH_NORM_MOMENTUM,
            epsilon=BATCH_NORM_EPSILON,
            dtype="float32",
            name="batch_norm",
        )
    yield layers.Activation(spec.activation, dtype="float32", name="activation")
    if spec.dropout:
        yield layers.Dropout(spec.dropout, seed=mask_seeds[0], dtype="float32", name="dropout")
    yield _pooling(spec.pooling)
    for number in range(1, spec.dense_layers + 1):
        yield layers.Dense(spec.dense_units, activation=spec.activation, dtype="float32", name=f"dense_{number}")
        if spec.dense_dropout:
            mask_seed = mask_seeds[number]
            yield layers.Dropout(spec.dense_dropout, seed=mask_seed, dtype="float32", name=f"dense_dropout_{number}")
    yield layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")


def _pooling(name: str) -> Any:
    kinds = {
        "flatten": keras.layers.Flatten,
        "average": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }
    return kinds[name](dtype="float32", name="pooling")
