"""HeadSpec to plain Keras model, with its first weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from features.runtime.keras_settings import nothing_drawn
from heads.model.pooling_layer import pooling_layer
from heads.model.spec import HeadSpec
from heads.model.weights import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, initial_weights


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
    with nothing_drawn():
        for layer in _layers(spec, feature_shape, classes, seed):
            outputs = layer(outputs)
    model = keras.Model(inputs, outputs, name="head")
    model.set_weights(initial_weights(spec, feature_shape, classes, seed=seed))
    return model


def _layers(spec: HeadSpec, feature_shape: tuple[int, int, int], classes: int, seed: int) -> Iterator[Any]:
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
    yield pooling_layer(spec.pooling, (*feature_shape[:2], spec.conv_width))
    for number in range(1, spec.dense_layers + 1):
        yield layers.Dense(spec.dense_units, activation=spec.activation, dtype="float32", name=f"dense_{number}")
        if spec.dense_dropout:
            mask_seed = mask_seeds[number]
            yield layers.Dropout(spec.dense_dropout, seed=mask_seed, dtype="float32", name=f"dense_dropout_{number}")
    yield layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")
