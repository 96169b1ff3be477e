"""Many heads in one set of arrays: forward, loss, gradients, update (docs/bank.md).

Pure functions of explicit arrays in ``keras.ops``. The backward pass is written out: it recomputes what is cheap (the
activations, the dropout masks) instead of keeping it, and stops at the first layer's weights, since nobody asks for the
gradient of the features. What is slow decides the layout: channels are the leading axis everywhere and positions come
before rows, so that the products, the element-wise passes, the sums of a channel and those over its positions all run
over contiguous memory and nothing is transposed.

Here the pieces are put together: ``page_passes``, ``dense_layers`` and ``update`` hold what lies between the products.
Letters in shapes are those of ``heads.bank.state``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from heads.bank.dense_layers import DenseLayers
from heads.bank.first_layer import FirstLayer
from heads.bank.functions import Tensor
from heads.bank.line_up import LineUp
from heads.bank.page_passes import PageByPage, Passes, WholePasses
from heads.bank.places import AllAtOnce, OneByOne
from heads.bank.shape import STATISTICS, BankShape
from heads.bank.state import Active, Arrays, Batch, Gradients, Norm, Present, Settings
from heads.bank.tools import Tools
from heads.bank.update import Update
from heads.model.spec import PAGE

_PARTS = 8
"""Sizes of the first layers' products: for an eighth fewer, taking pages out costs less than it saves."""
_DENSE_PARTS = 2
"""The same for those of the first dense layers, whose activations are large against what is multiplied."""
_DENSE = ("tiles", "pooled")
"""The arrays of the first dense layers."""


class Bank:
    """The mathematics of a bank of one shape.

    Args:
        shape: The bank's.
        dtype: Of the operands and results of products and of stored activations: ``bfloat16`` or ``float32``. Sums,
            statistics, losses, weights and moments are float32.
        tools: How products and passes are run.
        batch: Rows of a batch, where these are others than the training's.
    """

    def __init__(self, shape: BankShape, dtype: str, tools: Tools, *, batch: int | None = None) -> None:
        self.shape, self.dtype = shape, dtype
        self._product, self._in_use = tools.product, tools.in_use
        first = FirstLayer(shape, dtype, batch, tools.seal)
        each = OneByOne() if tools.one_by_one else AllAtOnce()
        passes: Passes = PageByPage(first) if tools.one_by_one else WholePasses(first)
        dense, update = DenseLayers(shape, dtype, each, batch=batch, seal=tools.seal), Update(shape)
        self._present = tools.fuse(LineUp(shape).present)
        self._activate, self._deactivate = tools.fuse(_in_training(passes)), tools.fuse(passes.backward)
        self._normalise = tools.fuse(_in_use(passes))
        self._classify, self._decide = tools.fuse(dense.classify), tools.fuse(dense.decide)
        self._between = tools.join(self._there_and_back)
        self.update, self.follow, self.move, self.keep = update.update, update.follow, update.move, update.keep

    def gradients(self, weights: Arrays, steps: Tensor, settings: Settings, batch: Batch) -> Gradients:
        """Loss and gradients of every head of a partition on a batch.

        Args:
            weights: Of the partition.
            steps: Its heads' counters, (H,) int32.
            settings: Of the partition, see ``Settings``.
            batch: See ``Batch``.
        """
        present = self._present(settings, steps)
        hidden = self._first_layer(weights["kernel"], batch.features, present)
        others = {name: array for name, array in weights.items() if name != "kernel"}
        found: Gradients
        found, error = self._between(hidden, others, batch.labels, present)
        found.weights["kernel"] = self._first_gradient(error, batch.features, present)
        return found

    def _there_and_back(
        self, hidden: Tensor, weights: Arrays, labels: Tensor, present: Present
    ) -> tuple[Gradients, Tensor]:
        """All between the first layers' two products: gradients but those of their kernels, and of ``hidden``."""
        active, norm = self._activate(hidden, self._norm(weights), present)
        dense = self._dense_kernels(weights)
        tiles, pooled = self._sums(active, dense, present)
        of_slots = {name: weights[name] for name in self.shape.slot_arrays}
        loss, errors, gradients = self._classify(tiles, pooled, of_slots, labels, present)
        back: dict[str, Tensor] = dict.fromkeys(_DENSE)
        for name, kernel in dense.items():
            used, inputs, error = getattr(present, f"used_{name}"), getattr(active, name), getattr(errors, name)
            found = self._in_use(self._product, used, _DENSE_PARTS, inputs, error)
            gradients[name] = ops.reshape(found, weights[name].shape)
            back[name] = self._in_use(self._times_transposed, used, _DENSE_PARTS, kernel, error)
        error, beta = self._deactivate(hidden, back["tiles"], back["pooled"], norm, present)
        if norm is None:
            return Gradients(loss, gradients, {}), error
        gradients["beta"] = beta
        return Gradients(loss, gradients, {"mean": norm.mean, "variance": norm.variance}), error

    def _first_layer(self, kernel: Tensor, features: Tensor, present: Present) -> Tensor:
        """The convolutions of all heads: kernel (P, 16, C) and features (S·B, C) to (N, S·B), products' dtype."""

        def convolve(kernel: Tensor) -> Tensor:
            flat = ops.reshape(ops.cast(kernel, self.dtype), (-1, kernel.shape[-1]))
            return ops.reshape(self._product(flat, features, transpose_b=True), (-1, PAGE, features.shape[0]))

        hidden = self._in_use(convolve, present.used_pages, _PARTS, kernel)
        return ops.reshape(hidden, (-1, features.shape[0]))

    def _first_gradient(self, error: Tensor, features: Tensor, present: Present) -> Tensor:
        """Gradient of the kernels, (P, 16, C) in the products' dtype, of that of the convolutions."""

        def multiply(error: Tensor) -> Tensor:
            flat = ops.reshape(error, (-1, features.shape[0]))
            return ops.reshape(self._product(flat, features), (-1, PAGE, features.shape[1]))

        paged = ops.reshape(error, (-1, PAGE, features.shape[0]))
        return self._in_use(multiply, present.used_pages, _PARTS, paged)

    def _norm(self, weights: Arrays) -> Norm | None:
        return Norm(*(weights[name] for name in ("beta", *STATISTICS))) if "beta" in weights else None

    def _dense_kernels(self, weights: Arrays) -> Arrays:
        """Kernels of the first dense layers: ``tiles`` (T, 16·S, V) and ``pooled`` (P, 16·Q, U), products' dtype."""
        kernels: Arrays = {}
        if "tiles" in weights:
            wide = ops.cast(weights["tiles"], self.dtype)
            kernels["tiles"] = ops.reshape(wide, (-1, PAGE * self.shape.positions, self.shape.tile_units))
        if "pooled" in weights:
            kernels["pooled"] = ops.cast(weights["pooled"], self.dtype)
        return kernels

    def _sums(self, active: Active, dense: Arrays, present: Present) -> tuple[Tensor | None, Tensor | None]:
        """What tiles (T, V, B) and pages of heads that pool (P, U, B) add to the first dense layers."""
        found: dict[str, Tensor] = dict.fromkeys(_DENSE)
        for name, kernel in dense.items():
            used, inputs = getattr(present, f"used_{name}"), getattr(active, name)
            found[name] = self._in_use(self._transposed_times, used, _DENSE_PARTS, kernel, inputs)
        return found["tiles"], found["pooled"]

    def _times_transposed(self, a: Tensor, b: Tensor) -> Tensor:
        return self._product(a, b, transpose_b=True)

    def _transposed_times(self, a: Tensor, b: Tensor) -> Tensor:
        return self._product(a, b, transpose_a=True)

    def probabilities(self, weights: Arrays, steps: Tensor, settings: Settings, features: Tensor) -> Tensor:
        """Predicts rows with the heads of a partition, without dropout; the host averages views and scores.

        Args:
            weights: Of the partition.
            steps: Its heads' counters.
            settings: Of the partition.
            features: (S·B, C) in the products' dtype, position by position.

        Returns:
            Class probabilities, (H, B, K) float32.
        """
        present = self._present(settings, steps)
        hidden = self._first_layer(weights["kernel"], features, present)
        active = self._normalise(hidden, self._norm(weights), present)
        tiles, pooled = self._sums(active, self._dense_kernels(weights), present)
        return self._decide(tiles, pooled, {name: weights[name] for name in self.shape.slot_arrays}, present)


def _in_training(passes: Passes) -> Callable[..., Any]:
    return lambda hidden, norm, present: passes.forward(hidden, norm, present, training=True)


def _in_use(passes: Passes) -> Callable[..., Any]:
    return lambda hidden, norm, present: passes.forward(hidden, norm, present, training=False)[0]
