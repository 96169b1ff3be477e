"""The first layer behind its product: batch norm, activation, dropout and pooling of every channel, and the way back.

What is cheap (the activations, the dropout masks) is computed again on the way back instead of being kept. Each piece
is written for channels (n, S·B): of all pages at once, with a code for each channel, or of one page, with one code
(``heads.bank.functions.choose``). Letters in shapes are those of ``heads.bank.state``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from keras import ops

from heads.bank.dropout import kept
from heads.bank.functions import Function, Seal, activations, as_deep, choose, in_own_kernel, slopes, unsealed
from heads.bank.shape import BankShape
from heads.bank.state import Norm
from heads.model.functions import POOLINGS, Pooling, Tensor
from heads.model.weights import BATCH_NORM_EPSILON


class Channels(NamedTuple):
    """What tells channels of one kind from those of another.

    Attributes:
        activation: int32, the code of all of them, or (n,) a code for each.
        pooling: Likewise.
        dropout: (n,) float32.
        key: (n,) uint32, of the dropout masks.
        batch_norm: (n,) bool.
    """

    activation: Tensor
    pooling: Tensor
    dropout: Tensor
    key: Tensor
    batch_norm: Tensor


class FirstLayer:
    """What follows the convolutions of all heads, channel by channel.

    Args:
        shape: The bank's.
        dtype: Of stored activations.
        batch: Rows of a batch, where these are others than the training's.
        seal: See ``heads.bank.functions.choose``.
    """

    def __init__(self, shape: BankShape, dtype: str, batch: int | None = None, seal: Seal = unsealed) -> None:
        self.shape, self.dtype, self.batch = shape, dtype, batch or shape.batch
        self._choose = partial(choose, seal=seal)
        rows, positions = np.arange(self.batch), np.arange(shape.positions)
        self._counters = (rows[None] * shape.positions + positions[:, None]).reshape(-1)
        self._poolings = [POOLINGS[name] for name in shape.poolings]

    def batch_statistics(self, hidden: Tensor, channels: Channels) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of each channel of (n, S·B): (n,) float32 each."""
        found: tuple[Tensor, Tensor] = in_own_kernel(
            lambda values: _mean_and_variance(ops.cast(values, "float32")), channels.activation, hidden
        )
        return found

    def activation_forward(self, hidden: Tensor, norm: Norm | None, channels: Channels, *, training: bool) -> Tensor:
        """Batch norm, activation and, in training, dropout of (n, S·B), in float32."""
        codes, numbers = self._codes(norm, channels)
        functions = [self._forward(function, training=training) for function in activations(self.shape.activations)]
        return self._choose(functions, codes, hidden, *numbers)

    def pool_forward(self, values: Tensor, channels: Channels) -> Tensor:
        """What pooling makes of (n, S·B) float32: (n, Q, B) in the products' dtype; zeros for what a head has not."""
        most = self.shape.pooled_values

        def pool(forward: Function | None) -> Function:
            def run(values: Tensor) -> Tensor:
                values = self._by_position(values)
                if forward is None:
                    return ops.zeros((values.shape[0], most, self.batch), self.dtype)
                found = ops.cast(forward(ops, values, 1), self.dtype)
                left = most - found.shape[1]
                return ops.pad(found, [[0, 0], [0, left], [0, 0]]) if left else found

            return run

        functions = [pool(None if pooling.keeps_positions else pooling.forward) for pooling in self._poolings]
        return self._choose(functions, channels.pooling, values)

    def pool_backward(
        self,
        flat: Callable[[], Tensor],
        error: Tensor | None,
        hidden: Tensor,
        norm: Norm | None,
        channels: Channels,
    ) -> Tensor:
        """Gradient of what ``activation_forward`` returned, (n, S·B) float32.

        Args:
            flat: Makes the gradient that heads which flatten have of it, (n, S·B) float32.
            error: Gradient of what ``pool_forward`` returned, (n, Q, B); None where every head flattens.
            hidden: As given to ``activation_forward``.
            norm: Likewise.
            channels: Likewise.
        """
        if error is None:
            return flat()
        error = ops.cast(error, "float32")

        def back(pooling: Pooling) -> Function:
            def run(error: Tensor) -> Tensor:
                if pooling.keeps_positions:
                    return flat()
                values = None
                if pooling.looks_back:
                    values = self._by_position(self.activation_forward(hidden, norm, channels, training=True))
                found = pooling.backward(ops, error[:, : pooling.values], values, self.shape.positions, 1)
                return ops.reshape(found, (error.shape[0], -1))

            return run

        return self._choose([back(pooling) for pooling in self._poolings], channels.pooling, error)

    def activation_backward(
        self, hidden: Tensor, error: Tensor, norm: Norm | None, channels: Channels
    ) -> tuple[Tensor, Tensor | None]:
        """The way back through ``activation_forward`` and ``batch_statistics``.

        Args:
            hidden: As given to them.
            error: Gradient of what was pooled, (n, S·B) float32.
            norm: With the batch's statistics.
            channels: As given.

        Returns:
            Gradient of ``hidden``, (n, S·B) in the products' dtype, and of beta, (n,) float32.
        """
        codes, numbers = self._codes(norm, channels)
        functions = [self._backward(slope) for slope in slopes(self.shape.activations)]
        error = self._choose(functions, codes, hidden, error, *numbers)
        if norm is None:
            return in_own_kernel(lambda error: ops.cast(error, self.dtype), channels.activation, error), None
        found: tuple[Tensor, Tensor] = in_own_kernel(
            self._through_norm, channels.activation, hidden, error, norm.mean, norm.variance, channels.batch_norm
        )
        return found

    def _through_norm(
        self, hidden: Tensor, error: Tensor, mean: Tensor, variance: Tensor, with_norm: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The way back through batch norm, where a head has one."""
        values = ops.cast(hidden, "float32")
        count = values.shape[1]
        scale = ops.rsqrt(variance + BATCH_NORM_EPSILON)
        centred = (values - mean[:, None]) * scale[:, None]
        beta_error, along = _row_sums(error), _row_sums(error * centred)
        through = (error - (beta_error / count)[:, None] - centred * (along / count)[:, None]) * scale[:, None]
        if False not in self.shape.batch_norm:
            return ops.cast(through, self.dtype), beta_error
        through = ops.where(with_norm[:, None], through, error)
        return ops.cast(through, self.dtype), ops.where(with_norm, beta_error, 0.0)

    def _codes(self, norm: Norm | None, channels: Channels) -> tuple[Tensor, list[Tensor]]:
        """The activations' codes, and what ``_scaled`` and ``_drop`` need."""
        numbers = [channels.dropout, channels.key]
        if norm is not None:
            scale = ops.rsqrt(norm.variance + BATCH_NORM_EPSILON)
            shift = norm.beta - norm.mean * scale
            if False in self.shape.batch_norm:
                scale = ops.where(channels.batch_norm, scale, ops.ones_like(scale))
                shift = ops.where(channels.batch_norm, shift, ops.zeros_like(shift))
            numbers += [scale, shift]
        return channels.activation, numbers

    def _forward(self, function: Function, *, training: bool) -> Function:
        def run(hidden: Tensor, dropout: Tensor, key: Tensor, *norm: Tensor) -> Tensor:
            values = function(_scaled(hidden, *norm))
            return self._drop(values, dropout, key) if training else values

        return run

    def _backward(self, slope: Function) -> Function:
        def run(hidden: Tensor, error: Tensor, dropout: Tensor, key: Tensor, *norm: Tensor) -> Tensor:
            return self._drop(error, dropout, key) * slope(_scaled(hidden, *norm))

        return run

    def _drop(self, values: Tensor, dropout: Tensor, key: Tensor) -> Tensor:
        """Inverted dropout of (n, S·B) float32, the same masks for activations and for their gradients."""
        if not self.shape.dropout:
            return values
        keep = kept(key, dropout, self._counters)
        return ops.where(keep, values * (1 / (1 - dropout))[:, None], 0.0)

    def _by_position(self, values: Tensor) -> Tensor:
        return ops.reshape(values, (-1, self.shape.positions, self.batch))


def _scaled(hidden: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Batch norm of (n, S·B), as one number to multiply with and one to add for each channel."""
    values = ops.cast(hidden, "float32")
    return values if scale is None else values * scale[:, None] + as_deep(shift, values)


def _mean_and_variance(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each row of (N, n), in one pass.

    Taken around the row's first value: around 0, the difference of the two sums has no digits left where a channel's
    mean is much larger than its spread.
    """
    first = values[:, :1]
    centred = values - first
    mean = _row_sums(centred) / values.shape[1]
    return mean + first[:, 0], _row_sums(ops.square(centred)) / values.shape[1] - ops.square(mean)


def _row_sums(values: Tensor) -> Tensor:
    """Sums (N, n) over its last axis, in eight strands.

    A single running sum waits for every addition before the next; compilers may not reorder it by themselves.
    """
    count = values.shape[1]
    strand = count // 8
    if strand < 32:
        return ops.sum(values, axis=1)
    parts = [values[:, i * strand : (i + 1) * strand] for i in range(8)]
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    total = ops.sum(parts[0], axis=1)
    return total if strand * 8 == count else total + ops.sum(values[:, strand * 8 :], axis=1)
