"""Dropout masks out of a counter: a number per activation, decided by the head alone.

Keras draws its masks from a stream, so that a mask depends on how many were drawn before and on the shape of the array
it is drawn for. In the bank that would make a head depend on its neighbours. Here each mask bit is a hash of (head's
seed, head's own step, layer, channel in the head, position and row in the batch) and of nothing else.

The hash is the 32-bit finaliser of Chris Wellons ("lowbias32", https://github.com/skeeto/hash-prospector), keyed once
per head, step, layer and channel, and applied once to every activation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

_GOLDEN = 0x9E3779B9  # 2^32 divided by the golden ratio: consecutive counters land far apart
_LEVELS = 24  # bits of a hash that are compared with the rate: what a float32 rate resolves


def _uint32(value: int) -> Any:
    return ops.convert_to_tensor(np.uint32(value), dtype="uint32")


def mix(bits: Any) -> Any:
    """Scrambles uint32 numbers of any shape; one to one."""
    bits = ops.bitwise_xor(bits, ops.bitwise_right_shift(bits, _uint32(16)))
    bits = ops.multiply(bits, _uint32(0x7FEB352D))
    bits = ops.bitwise_xor(bits, ops.bitwise_right_shift(bits, _uint32(15)))
    bits = ops.multiply(bits, _uint32(0x846CA68B))
    return ops.bitwise_xor(bits, ops.bitwise_right_shift(bits, _uint32(16)))


def keys(seeds: Any, steps: Any, channels: Any, *, layer: int) -> Any:
    """Returns the uint32 key of each channel's mask in one step; arguments broadcast.

    Args:
        seeds: int32, the head's mask seed, at least 0.
        steps: int32, steps that the head has taken.
        channels: int32, channel in the head (or unit in a hidden layer).
        layer: 0 for the convolution, then the number of the hidden layer.
    """
    key = mix(ops.cast(seeds, "uint32"))
    for part in (steps, channels * 4 + layer):
        key = mix(ops.bitwise_xor(key, ops.multiply(ops.cast(part, "uint32"), _uint32(_GOLDEN))))
    return key


def kept(key: Any, rates: Any, counters: npt.NDArray[np.int64]) -> Any:
    """Returns which activations of each channel are kept.

    Args:
        key: (...,) uint32, from ``keys``.
        rates: (...,) float32 in [0, 1): the share to drop.
        counters: (n,) place of each activation of one channel in a batch: counted through rows, and in each row
            through its positions.

    Returns:
        (..., n) bool.
    """
    spread = counters.astype(np.uint32) * np.uint32(_GOLDEN)
    bits = mix(ops.bitwise_xor(key[..., None], ops.convert_to_tensor(spread, dtype="uint32")))
    level = ops.cast(ops.bitwise_right_shift(bits, _uint32(32 - _LEVELS)), "int32")
    return level >= ops.cast(rates * float(2**_LEVELS), "int32")[..., None]
