"""Activations and poolings of many heads at once, and their derivatives, chosen for each channel by a code.

The functions are those of ``heads.model.functions``; a code is a place in the names that a bank was made for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from keras import ops

from heads.model.functions import ACTIVATIONS, POOLINGS

Tensor = Any


def as_deep(vector: Tensor, array: Tensor) -> Tensor:
    """Adds axes to the end of ``vector`` until it broadcasts over ``array``."""
    return ops.reshape(vector, (*vector.shape, *[1] * (len(array.shape) - len(vector.shape))))


def activate(names: tuple[str, ...], codes: Tensor, values: Tensor) -> Tensor:
    """Applies to each leading index of ``values`` the activation that its code has chosen among ``names``."""
    return _by_code((_forward(name)(ops, values) for name in names), codes)


def slopes(names: tuple[str, ...], codes: Tensor, values: Tensor) -> Tensor:
    """Returns the derivatives of ``activate``, in the shape of ``values``."""
    return _by_code((ACTIVATIONS[name].slope(ops, values) for name in names), codes)


def pool(names: tuple[str, ...], codes: Tensor, values: Tensor) -> Tensor:
    """Pools (N, B, S); where no position is kept, the value lies in position 0, zeros behind it."""
    return _by_code((_pooled(name, values) for name in names), codes)


def unpool(
    names: tuple[str, ...], codes: Tensor, error: Tensor, values: Callable[[], Tensor], positions: int
) -> Tensor:
    """Returns the gradient of what was pooled, (N, B, S).

    Args:
        names: The poolings that occur.
        codes: (N,) int32.
        error: Gradient of the result of ``pool``, (N, B, S), or (N, B, 1) where no pooling keeps positions.
        values: Makes what was pooled, (N, B, S); called where one of the poolings looks at it.
        positions: S.
    """
    looked_at = values() if any(POOLINGS[name].looks_back for name in names) else None
    return _by_code((_unpooled(name, error, looked_at, positions) for name in names), codes)


def _by_code(results: Iterable[Tensor], codes: Tensor) -> Tensor:
    chosen, *others = results
    for code, result in enumerate(others, 1):
        chosen = ops.where(as_deep(codes == code, result), result, chosen)
    return chosen


def _forward(name: str) -> Callable[[Any, Tensor], Tensor]:
    forward = ACTIVATIONS[name].forward
    assert forward is not None, f"{name} is no activation of a search"
    return forward


def _pooled(name: str, values: Tensor) -> Tensor:
    pooling = POOLINGS[name]
    pooled = pooling.forward(ops, values)
    if pooling.keeps_positions:
        return pooled
    return ops.pad(pooled[..., None], [[0, 0], [0, 0], [0, values.shape[-1] - 1]])


def _unpooled(name: str, error: Tensor, values: Tensor | None, positions: int) -> Tensor:
    pooling = POOLINGS[name]
    return pooling.backward(ops, error if pooling.keeps_positions else error[..., :1], values, positions)
