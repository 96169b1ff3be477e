"""The first layer behind its product: batch norm, activation, dropout and pooling of every channel, and the way back.

What is cheap (the activations, the dropout masks) is computed again on the way back instead of being kept. Letters in
shapes are those of ``heads.bank.state``.
"""

from __future__ import annotations

from keras import ops

from heads.bank.dropout import kept
from heads.bank.functions import Tensor, activate, as_deep, pool, slopes, unpool
from heads.bank.shape import BankShape
from heads.bank.state import Arrays, Norm
from heads.model.spec import PAGE
from heads.model.weights import BATCH_NORM_EPSILON


class FirstLayer:
    """What follows the convolutions of all heads, channel by channel.

    Args:
        shape: The bank's.
        dtype: Of stored activations.
    """

    def __init__(self, shape: BankShape, dtype: str) -> None:
        self.shape, self.dtype = shape, dtype

    def activate(self, hidden: Tensor, beta: Tensor | None, channels: Arrays) -> tuple[Tensor, Norm | None]:
        """Batch norm, activation, dropout and pooling of the first layer, in training.

        Args:
            hidden: (N, B·S) in the products' dtype.
            beta: (N,), or None where no head has batch norm.
            channels: As in ``Present``.

        Returns:
            Activations (G·P, 16, B, dense positions) in the products' dtype; the batch's statistics, with beta.
        """
        values = ops.cast(hidden, "float32")
        norm = None
        if beta is not None:
            norm = Norm(beta, *_moments(values))
        values = self._activated(self._scaled(values, norm, channels), channels)
        return self._pool(self._drop(values, channels), channels), norm

    def deactivate(
        self, hidden: Tensor, error: Tensor, norm: Norm | None, channels: Arrays
    ) -> tuple[Tensor, Tensor | None]:
        """The way back through ``activate``.

        Args:
            hidden: As given to ``activate``.
            error: Gradient of its activations, in their shape and dtype.
            norm: As returned by it.
            channels: As given to it.

        Returns:
            Gradient of ``hidden``, in its shape and dtype, and of beta, (N,) float32.
        """
        values = ops.cast(hidden, "float32")
        scaled = self._scaled(values, norm, channels)
        error = self._drop(self._unpool(ops.cast(error, "float32"), scaled, channels), channels)
        error = error * slopes(self.shape.activations, channels["activation"], scaled)
        if norm is None:
            return ops.cast(error, self.dtype), None
        scale = ops.rsqrt(norm.variance + BATCH_NORM_EPSILON)[:, None]
        centred = (values - norm.mean[:, None]) * scale
        beta_error = _row_sums(error)
        along = _row_sums(error * centred)[:, None] / values.shape[1]
        through = (error - beta_error[:, None] / values.shape[1] - centred * along) * scale
        beta_error = self._where_norm(channels, beta_error, ops.zeros_like(beta_error))
        return ops.cast(self._where_norm(channels, through, error), self.dtype), beta_error

    def normalise(self, hidden: Tensor, norm: Norm | None, channels: Arrays) -> Tensor:
        """``activate`` as in use: moving statistics, no dropout."""
        values = self._scaled(ops.cast(hidden, "float32"), norm, channels)
        return self._pool(self._activated(values, channels), channels)

    def _where_norm(self, channels: Arrays, with_norm: Tensor, without: Tensor) -> Tensor:
        """Chooses between heads with and without batch norm; axes after the first are free."""
        if False not in self.shape.batch_norm:
            return with_norm
        return ops.where(as_deep(channels["batch_norm"], with_norm), with_norm, without)

    def _scaled(self, values: Tensor, norm: Norm | None, channels: Arrays) -> Tensor:
        """Batch norm of (N, B·S) float32."""
        if norm is None:
            return values
        scale = ops.rsqrt(norm.variance + BATCH_NORM_EPSILON)
        shift = norm.beta - norm.mean * scale
        scale = self._where_norm(channels, scale, ops.ones_like(scale))
        shift = self._where_norm(channels, shift, ops.zeros_like(shift))
        return values * scale[:, None] + shift[:, None]

    def _activated(self, values: Tensor, codes: Arrays) -> Tensor:
        return activate(self.shape.activations, codes["activation"], values)

    def _drop(self, values: Tensor, channels: Arrays) -> Tensor:
        """Inverted dropout of (N, B·S) float32, the same masks for activations and for their gradients."""
        if not self.shape.dropout:
            return values
        keep = kept(channels["key"], channels["dropout"], values.shape[1])
        return ops.where(keep, values * (1 / (1 - channels["dropout"]))[:, None], 0.0)

    def _pool(self, values: Tensor, channels: Arrays) -> Tensor:
        """(N, B·S) float32 to (G·P, 16, B, dense positions): a pooled value lies in position 0, zeros behind it."""
        shape = self.shape
        values = ops.reshape(values, (-1, shape.batch, shape.positions))
        if shape.poolings != ("flatten",):
            values = pool(shape.poolings, channels["pooling"], values)[..., : shape.dense_positions]
        return ops.cast(ops.reshape(values, (-1, PAGE, shape.batch, shape.dense_positions)), self.dtype)

    def _unpool(self, error: Tensor, scaled: Tensor, channels: Arrays) -> Tensor:
        """Gradient of what was pooled, (N, B·S) float32; ``scaled`` is what ``activate`` activated."""
        shape = self.shape
        if shape.poolings == ("flatten",):
            return ops.reshape(error, scaled.shape)
        error = ops.reshape(error, (-1, shape.batch, shape.dense_positions))

        def pooled() -> Tensor:
            values = self._drop(self._activated(scaled, channels), channels)
            return ops.reshape(values, (-1, shape.batch, shape.positions))

        error = unpool(shape.poolings, channels["pooling"], error, pooled, shape.positions)
        return ops.reshape(error, scaled.shape)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
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
