"""How fast this machine multiplies matrices of a bank's size: the measure that its speed is held against."""

from __future__ import annotations

import time
from statistics import median

import keras
import numpy as np

from heads.bank.backends import bare_product
from heads.bank.shape import BankShape
from heads.model.spec import PAGE

REPETITIONS = 5


def bank_rate(shape: BankShape, dtype: str, *, repetitions: int = REPETITIONS) -> float:
    """Measures the bare products of a bank's first layers, of all partitions at once, which is never the slower way.

    Args:
        shape: Of the bank.
        dtype: ``bfloat16`` or ``float32``.
        repetitions: Pairs of products; the median counts.

    Returns:
        Floating-point operations per second.
    """
    rows, outputs = shape.batch * shape.positions, shape.pages * PAGE * shape.training_partitions
    channels = shape.feature_shape[2]
    return matmul_rate(rows=rows, channels=channels, outputs=outputs, dtype=dtype, repetitions=repetitions)


def matmul_rate(*, rows: int, channels: int, outputs: int, dtype: str, repetitions: int = REPETITIONS) -> float:
    """Measures the bare products of a bank's first layer, forward and weight gradient, nothing around them.

    Args:
        rows: Rows of features in a batch, positions counted.
        channels: Channels of a bottleneck.
        outputs: Channels of all heads together.
        dtype: ``bfloat16`` or ``float32``.
        repetitions: Pairs of products; the median counts.

    Returns:
        Floating-point operations per second.
    """
    generator = np.random.default_rng(0)
    features, kernel, error = (
        keras.ops.cast(keras.ops.convert_to_tensor(generator.standard_normal(size, np.float32)), dtype)
        for size in ((rows, channels), (outputs, channels), (outputs, rows))
    )

    multiply = bare_product()

    def both() -> None:
        forward = multiply(kernel, features, transpose_b=True)  # a transposition of its own would cost as much again
        gradient = multiply(error, features)
        for product in (forward, gradient):
            keras.ops.convert_to_numpy(product[:1, :1])  # waits for it

    both()
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        both()
        seconds.append(time.perf_counter() - begun)
    return 4 * rows * channels * outputs / median(seconds)
