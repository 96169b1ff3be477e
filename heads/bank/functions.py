"""Activations and poolings of the bank, and their derivatives, chosen for each channel by a code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

Tensor = Any


def as_deep(vector: Tensor, array: Tensor) -> Tensor:
    """Adds axes to the end of ``vector`` until it broadcasts over ``array``."""
    return ops.reshape(vector, (*vector.shape, *[1] * (len(array.shape) - len(vector.shape))))


def by_code(table: dict[str, Callable[..., Tensor]], names: tuple[str, ...], codes: Tensor, *arguments: Any) -> Tensor:
    """Applies to each leading index the function that its code, a place in ``names``, has chosen."""
    chosen, *others = (table[name](*arguments) for name in names)
    for code, result in enumerate(others, 1):
        chosen = ops.where(as_deep(codes == code, result), result, chosen)
    return chosen


def _gelu(values: Tensor) -> Tensor:
    return values * _normal_share(values)


def _normal_share(values: Tensor) -> Tensor:
    return 0.5 * (1 + ops.erf(values * math.sqrt(0.5)))


def _gelu_slope(values: Tensor) -> Tensor:
    density = ops.exp(-0.5 * ops.square(values)) * (1 / math.sqrt(2 * math.pi))
    return _normal_share(values) + values * density


def _silu_slope(values: Tensor) -> Tensor:
    share = ops.sigmoid(values)
    return share * (1 + values * (1 - share))


def _relu_slope(values: Tensor) -> Tensor:
    # NaN compares false: written so that a broken head stays broken instead of standing still.
    return ops.where(values <= 0, 0.0, ops.ones_like(values))


ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": ops.relu,
    "gelu": _gelu,
    "silu": lambda values: values * ops.sigmoid(values),
}


SLOPES: dict[str, Callable[..., Tensor]] = {"relu": _relu_slope, "gelu": _gelu_slope, "silu": _silu_slope}


def _first_only(pooled: Tensor, positions: int) -> Tensor:
    return ops.pad(pooled[..., None], [[0, 0], [0, 0], [0, positions - 1]])


POOLINGS: dict[str, Callable[..., Tensor]] = {
    "flatten": lambda values: values,
    "average": lambda values: _first_only(ops.mean(values, axis=-1), values.shape[-1]),
    "max": lambda values: _first_only(ops.max(values, axis=-1), values.shape[-1]),
}


def _unpool_average(error: Tensor, _: Tensor | None, positions: int) -> Tensor:
    return ops.repeat(error[..., :1] / positions, positions, axis=-1)


def _unpool_max(error: Tensor, pooled: Tensor, _: int) -> Tensor:
    """Shared evenly between equals, as Keras' backends do."""
    highest = pooled == ops.max(pooled, axis=-1, keepdims=True)
    shares = ops.sum(ops.cast(highest, "float32"), axis=-1, keepdims=True)
    return ops.where(highest, error[..., :1] / shares, 0.0)


UNPOOLINGS: dict[str, Callable[..., Tensor]] = {
    "flatten": lambda error, _, __: error,
    "average": _unpool_average,
    "max": _unpool_max,
}
