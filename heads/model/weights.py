"""A head's arrays: their shapes, first values, and the moving statistics among them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from heads.model.functions import pooled_values
from heads.model.spec import HeadSpec

BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1e-3
_STATISTICS = (2, 3)
"""Places of moving mean and variance among the weights of a head with batch norm."""

Weights = list[npt.NDArray[np.float32]]
"""The arrays of a head in the order of ``model.get_weights()``."""


def dense_shapes(spec: HeadSpec, feature_shape: tuple[int, int, int], classes: int) -> list[tuple[int, int]]:
    """Returns (inputs, units) of every dense layer, the softmax layer last."""
    height, width, _ = feature_shape
    inputs = spec.conv_width * pooled_values(spec.pooling, height * width)
    units = [*[spec.dense_units] * spec.dense_layers, classes]
    return list(zip([inputs, *units[:-1]], units, strict=True))


def multiplications(spec: HeadSpec, feature_shape: tuple[int, int, int], classes: int) -> tuple[int, int]:
    """Returns the multiplications of a head's products for one row: of its first layer, and of its dense layers."""
    dense = sum(inputs * units for inputs, units in dense_shapes(spec, feature_shape, classes))
    return math.prod(feature_shape) * spec.conv_width, dense


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


def without_statistics(spec: HeadSpec, weights: Weights) -> Weights:
    """Returns the weights with moving mean and variance 0: what ``unbiased`` expects a training to begin with."""
    return [
        np.zeros_like(array) if spec.batch_norm and index in _STATISTICS else array
        for index, array in enumerate(weights)
    ]


def unbiased(spec: HeadSpec, weights: Weights, steps: int) -> Weights:
    """Returns the weights with moving averages that do not remember where they began.

    With a momentum of 0.99 Keras' moving statistics are for hundreds of steps mostly their initial values: a head with
    five steps an epoch scores like chance for ten epochs, whatever it has learnt, and a pruner takes it for a weak
    one. Divided by 1 - 0.99^steps they are the averages of the batches alone, which is how Adam corrects its moments
    (Kingma and Ba 2015, arXiv:1412.6980, section 3). After a thousand steps there is no difference left.

    Args:
        spec: The head.
        weights: In the order of ``model.get_weights()``, trained from ``without_statistics``.
        steps: Batches that it was trained on, at least 1.
    """
    share = 1 - BATCH_NORM_MOMENTUM**steps
    return [
        (array / share).astype(np.float32) if spec.batch_norm and index in _STATISTICS else array
        for index, array in enumerate(weights)
    ]


def _glorot_uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    # The receptive field of a 1x1 convolution is 1, so the fans are the last two axes as for a dense layer.
    limit = math.sqrt(6 / (shape[-2] + shape[-1]))
    return generator.uniform(-limit, limit, shape).astype(np.float32)
