"""The element-wise passes between the products: from the convolutions to what the dense layers multiply, and back.

``PageByPage`` and ``WholePasses`` do the same, see ``heads.bank.places``. In shapes, as in ``heads.bank.state``: M
pages of a lane, N = 16·M channels, S positions, B rows, T tiles, Q values of a channel that pooling leaves.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from keras import ops

from heads.bank.first_layer import Channels, FirstLayer
from heads.bank.places import at, bits, kept_as, put
from heads.bank.state import Active, Arrays, Lane, Norm
from heads.model.functions import Tensor
from heads.model.spec import PAGE


class Passes(Protocol):
    """What lies between the products of the first layer and those of the first dense layer, in one lane."""

    def forward(self, hidden: Tensor, norm: Norm | None, lane: Lane, *, training: bool) -> tuple[Active, Norm | None]:
        """From convolutions to activations.

        Args:
            hidden: (N, S·B) in the products' dtype; more columns may follow, which nobody looks at.
            norm: Moving statistics and beta; in training only beta is looked at. None where no head has batch norm.
            lane: See ``Lane``.
            training: Whether to take the batch's statistics and to drop.

        Returns:
            The activations; the statistics that were used.
        """

    def backward(
        self, hidden: Tensor, back: Arrays, norm: Norm | None, lane: Lane, over: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The way back through ``forward``.

        Args:
            hidden: As given to it.
            back: In the products' dtype, ``tiles``, gradient of each tile's activations, (T, 16·S, B), of all lanes,
                and ``pooled``, of the pooled ones, (M, 16·Q, B), where there are any.
            norm: As returned by it.
            lane: As given to it.
            over: The activations that it returned, (M, 16·S, B), where nobody needs them any more: the result is
                made in their place, so that no memory has to be cleared for it.

        Returns:
            Gradient of ``hidden``, in its shape and dtype, zeros in further columns, and of beta, (M, 16) float32.
        """


class PageByPage:
    """Each page in use by itself: its one kind's functions, on what fits the cache."""

    def __init__(self, layer: FirstLayer) -> None:
        self._layer, self._shape = layer, layer.shape
        self._values = layer.shape.positions * layer.batch

    def forward(self, hidden: Tensor, norm: Norm | None, lane: Lane, *, training: bool) -> tuple[Active, Norm | None]:
        """See ``Passes``."""
        layer, shape, dtype, kept = self._layer, self._shape, self._layer.dtype, kept_as(self._layer.dtype)
        hidden = bits(ops.reshape(hidden, (-1, PAGE, hidden.shape[-1])))  # (N, S·B) to (M, 16, S·B)
        pages = hidden.shape[0]
        start = {}
        if shape.flattens:
            start["flat"] = ops.zeros((pages, PAGE, self._values), kept)
        if shape.pools:
            start["pooled"] = ops.zeros((pages, PAGE, shape.pooled_values, layer.batch), kept)
        if norm is not None:
            start |= {"mean": ops.zeros((pages, PAGE), "float32"), "variance": ops.zeros((pages, PAGE), "float32")}

        def body(number: Tensor, carry: dict[str, Tensor]) -> dict[str, Tensor]:
            page = ops.take(lane.used.places, number, axis=0)
            page_hidden, channels, page_norm = self._of_page(hidden, page), _channels(lane, page), _norm_of(norm, page)
            carry = dict(carry)
            if page_norm is not None:
                if training:
                    page_norm = Norm(page_norm.beta, *layer.batch_statistics(page_hidden, channels))
                carry["mean"] = put(carry["mean"], page, page_norm.mean)
                carry["variance"] = put(carry["variance"], page, page_norm.variance)
            values = layer.activation_forward(page_hidden, page_norm, channels, training=training)
            if shape.flattens:
                once = ops.minimum(at(lane.pages["tile_count"], page), 1)  # a loop, as it writes where its array lies
                carry["flat"] = ops.fori_loop(0, once, lambda _, flat: put(flat, page, values, dtype), carry["flat"])
            if shape.pools:
                carry["pooled"] = put(carry["pooled"], page, layer.pool_forward(values, channels), dtype)
            return carry

        found = ops.fori_loop(0, lane.used.count, body, start)
        flat, pooled = (_values_of(found.get(name), dtype) for name in ("flat", "pooled"))
        if flat is not None:
            flat = ops.reshape(flat, (-1, PAGE * shape.positions, layer.batch))  # (M, 16, S·B) to (M, 16·S, B)
        statistics = None if norm is None else Norm(norm.beta, found["mean"], found["variance"])
        return Active(flat, _joined(pooled)), statistics

    def backward(
        self, hidden: Tensor, back: Arrays, norm: Norm | None, lane: Lane, over: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """See ``Passes``."""
        layer, dtype = self._layer, self._layer.dtype
        paged = bits(ops.reshape(hidden, (-1, PAGE, hidden.shape[-1])))  # (N, S·B) to (M, 16, S·B)
        tiles, pooled = back.get("tiles"), back.get("pooled")
        if tiles is not None:
            tiles = bits(ops.reshape(tiles, (-1, PAGE, self._values)))  # (T, 16·S, B) to (T, 16, S·B)
        if pooled is not None:
            pooled = bits(ops.reshape(pooled, (-1, PAGE, self._shape.pooled_values, layer.batch)))  # (M, 16, Q, B)
        blank = ops.zeros(paged.shape, kept_as(dtype)) if over is None else bits(ops.reshape(over, paged.shape))
        start = {"error": blank}
        if norm is not None:
            start["beta"] = ops.zeros((paged.shape[0], PAGE), "float32")

        def flat_error(page: Tensor) -> Tensor:
            """The sum over a page's tiles, of which it has one at least."""
            places, count = at(lane.pages["tiles"], page), at(lane.pages["tile_count"], page)

            def tile(part: Tensor) -> Tensor:
                return ops.cast(at(tiles, ops.take(places, part), dtype), "float32")

            return ops.fori_loop(1, count, lambda part, total: total + tile(part), tile(0))

        def body(number: Tensor, carry: dict[str, Tensor]) -> dict[str, Tensor]:
            page = ops.take(lane.used.places, number, axis=0)
            page_hidden, channels, page_norm = self._of_page(paged, page), _channels(lane, page), _norm_of(norm, page)
            error = None if pooled is None else at(pooled, page, dtype)
            error = layer.pool_backward(lambda: flat_error(page), error, page_hidden, page_norm, channels)
            error, beta = layer.activation_backward(page_hidden, error, page_norm, channels)
            carry = {**carry, "error": put(carry["error"], page, error, dtype)}
            if beta is not None:
                carry["beta"] = put(carry["beta"], page, beta)
            return carry

        found = ops.fori_loop(0, lane.used.count, body, start)
        return ops.reshape(_values_of(found["error"], dtype), hidden.shape), found.get("beta")

    def _of_page(self, bits_of_pages: Tensor, page: Tensor) -> Tensor:
        return at(bits_of_pages, page, self._layer.dtype)[:, : self._values]


class WholePasses:
    """All pages at once: every kind's functions for every channel, of which the channel's code chooses."""

    def __init__(self, layer: FirstLayer) -> None:
        self._layer, self._shape = layer, layer.shape

    def forward(self, hidden: Tensor, norm: Norm | None, lane: Lane, *, training: bool) -> tuple[Active, Norm | None]:
        """See ``Passes``."""
        layer, shape = self._layer, self._shape
        channels, channel_norm = _channels(lane, None), _norm_of(norm, None)
        if channel_norm is not None and training:
            channel_norm = Norm(channel_norm.beta, *layer.batch_statistics(hidden, channels))
        values = layer.activation_forward(hidden, channel_norm, channels, training=training)
        flat = pooled = None
        if shape.flattens:  # (N, S·B) to (M, 16·S, B)
            flat = ops.reshape(ops.cast(values, layer.dtype), (-1, PAGE * shape.positions, layer.batch))
        if shape.pools:  # (N, Q, B) to (M, 16·Q, B)
            pooled = ops.reshape(layer.pool_forward(values, channels), (-1, PAGE * shape.pooled_values, layer.batch))
        return Active(flat, pooled), None if channel_norm is None else Norm(*map(_in_pages, channel_norm))

    def backward(
        self, hidden: Tensor, back: Arrays, norm: Norm | None, lane: Lane, over: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """See ``Passes``."""
        del over
        layer, pooled = self._layer, back.get("pooled")
        channels, channel_norm = _channels(lane, None), _norm_of(norm, None)
        # (M, 16·Q, B) to (N, Q, B)
        error = None if pooled is None else ops.reshape(pooled, (-1, self._shape.pooled_values, layer.batch))
        error = layer.pool_backward(lambda: self._of_pages(back["tiles"], lane), error, hidden, channel_norm, channels)
        error, beta = layer.activation_backward(hidden, error, channel_norm, channels)
        return error, None if beta is None else _in_pages(beta)

    def _of_pages(self, tiles: Tensor, lane: Lane) -> Tensor:
        """Adds up what the tiles of a page have, in their order: (N, S·B) float32."""
        parts = np.arange(self._shape.tiles_in_page)
        total: Tensor = 0.0
        for part in parts:
            has_part = (lane.pages["tile_count"] > part)[:, None, None]
            errors = ops.take(tiles, lane.pages["tiles"][:, part], axis=0)  # (T, 16·S, B) to (M, 16·S, B)
            total = total + ops.where(has_part, ops.cast(errors, "float32"), 0.0)
        return ops.reshape(total, (-1, self._shape.positions * self._layer.batch))


def _channels(lane: Lane, page: Tensor | None) -> Channels:
    """What is known of a page's channels; of all where it is None."""
    codes, numbers = lane.pages, lane.channels
    if page is None:
        whole = {name: ops.repeat(codes[name], PAGE, axis=0) for name in ("activation", "pooling")}
        return Channels(**whole, **{name: ops.reshape(array, (-1,)) for name, array in numbers.items()})
    code = {name: at(codes[name], page) for name in ("activation", "pooling")}
    return Channels(**code, **{name: at(array, page) for name, array in numbers.items()})


def _norm_of(norm: Norm | None, page: Tensor | None) -> Norm | None:
    if norm is None:
        return None
    return Norm(*(ops.reshape(array, (-1,)) if page is None else at(array, page) for array in norm))


def _in_pages(of_channels: Tensor) -> Tensor:
    """(N,) to (M, 16)."""
    return ops.reshape(of_channels, (-1, PAGE))


def _values_of(array: Tensor | None, dtype: str) -> Tensor | None:
    """What ``heads.bank.places.bits`` were taken of."""
    return array if array is None or kept_as(dtype) == dtype else ops.view(array, dtype)


def _joined(pooled: Tensor | None) -> Tensor | None:
    """(M, 16, Q, B) to (M, 16·Q, B)."""
    return None if pooled is None else ops.reshape(pooled, (pooled.shape[0], -1, pooled.shape[-1]))
