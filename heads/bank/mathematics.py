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
from heads.bank.page_passes import PageByPage, Passes, WholePasses
from heads.bank.partitions import Partitions
from heads.bank.places import AllAtOnce, OneByOne
from heads.bank.shape import STATISTICS, BankShape
from heads.bank.state import Active, Arrays, Batch, Gradients, Norm, Settings
from heads.bank.tools import Tools
from heads.bank.update import Update
from heads.model.spec import PAGE


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
        self.shape, self.dtype, self._product = shape, dtype, tools.product
        self.partitions = Partitions(shape)
        first, each = FirstLayer(shape, dtype, batch), OneByOne() if tools.one_by_one else AllAtOnce()
        passes: Passes = PageByPage(first) if tools.one_by_one else WholePasses(first)
        dense, update = DenseLayers(shape, dtype, each, batch), Update(self.partitions)
        self._present = tools.fuse(self.partitions.present)
        self._activate, self._deactivate = tools.fuse(_in_training(passes)), tools.fuse(passes.backward)
        self._normalise = tools.fuse(_in_use(passes))
        self._classify, self._decide = tools.fuse(dense.classify), tools.fuse(dense.decide)
        self.update, self.keep = update.update, update.keep

    def gradients(self, weights: Arrays, steps: Tensor, settings: Settings, batch: Batch) -> Gradients:
        """Loss and gradients of every head that trains on a batch.

        Args:
            weights: The state's.
            steps: The state's counter, (F, H) int32.
            settings: See ``Settings``.
            batch: See ``Batch``.
        """
        partitions = self.partitions.others(batch.fold)
        present = self._present(settings, steps, partitions)
        mine = {name: self.partitions.select(array, partitions) for name, array in weights.items()}
        hidden = self._first_layer(mine["kernel"], batch.features)
        active, norm = self._activate(hidden, self._norm(mine), present)
        dense = self._dense_kernels(mine)
        tiles, pooled = self._sums(active, dense)
        of_slots = {name: mine[name] for name in self.shape.slot_arrays}
        loss, errors, gradients = self._classify(tiles, pooled, of_slots, batch.labels, present)
        back_tiles = back_pooled = None
        if "tiles" in dense:
            gradients["tiles"] = ops.reshape(self._product(active.tiles, errors.tiles), mine["tiles"].shape)
            back_tiles = self._product(dense["tiles"], errors.tiles, transpose_b=True)
        if "pooled" in dense:
            gradients["pooled"] = self._product(active.pooled, errors.pooled)
            back_pooled = self._product(dense["pooled"], errors.pooled, transpose_b=True)
        error, beta = self._deactivate(hidden, back_tiles, back_pooled, norm, present)
        gradients["kernel"] = ops.reshape(self._product(error, batch.features), mine["kernel"].shape)
        if norm is None:
            return Gradients(loss, gradients, {})
        gradients["beta"] = beta
        return Gradients(loss, gradients, {"mean": norm.mean, "variance": norm.variance})

    def _first_layer(self, kernel: Tensor, features: Tensor) -> Tensor:
        """The convolutions of all heads: kernel (G·P, 16, C) and features (S·B, C) to (N, S·B), products' dtype."""
        flat = ops.reshape(ops.cast(kernel, self.dtype), (-1, kernel.shape[-1]))
        return self._product(flat, features, transpose_b=True)

    def _norm(self, weights: Arrays) -> Norm | None:
        return Norm(*(weights[name] for name in ("beta", *STATISTICS))) if "beta" in weights else None

    def _dense_kernels(self, weights: Arrays) -> Arrays:
        """Kernels of the first dense layers: ``tiles`` (G·T, 16·S, V) and ``pooled`` (G·P, 16, U), products' dtype."""
        kernels: Arrays = {}
        if "tiles" in weights:
            wide = ops.cast(weights["tiles"], self.dtype)
            kernels["tiles"] = ops.reshape(wide, (-1, PAGE * self.shape.positions, self.shape.tile_units))
        if "pooled" in weights:
            kernels["pooled"] = ops.cast(weights["pooled"], self.dtype)
        return kernels

    def _sums(self, active: Active, dense: Arrays) -> tuple[Tensor | None, Tensor | None]:
        """What tiles (G·T, V, B) and pages of heads that pool (G·P, U, B) add to the first dense layers."""
        tiles = self._product(dense["tiles"], active.tiles, transpose_a=True) if "tiles" in dense else None
        pooled = self._product(dense["pooled"], active.pooled, transpose_a=True) if "pooled" in dense else None
        return tiles, pooled

    def probabilities(
        self, weights: Arrays, steps: Tensor, settings: Settings, features: Tensor, partitions: Tensor | None
    ) -> Tensor:
        """Class probabilities (G·H, B, K) float32 of the heads in the chosen partitions, without dropout."""
        present = self._present(settings, steps, partitions)
        mine = {name: self.partitions.select(array, partitions) for name, array in weights.items()}
        hidden = self._first_layer(mine["kernel"], features)
        active = self._normalise(hidden, self._norm(mine), present)
        tiles, pooled = self._sums(active, self._dense_kernels(mine))
        return self._decide(tiles, pooled, {name: mine[name] for name in self.shape.slot_arrays}, present)

    def predict(self, weights: Arrays, steps: Tensor, settings: Settings, features: Tensor, fold: Tensor) -> Tensor:
        """Predicts rows with the heads of one fold; the host averages views and scores.

        Args:
            weights: The state's.
            steps: The state's counter.
            settings: See ``Settings``.
            features: (S·B, C) in the products' dtype, position by position.
            fold: int32 scalar: whose heads; without meaning where there is one fold.

        Returns:
            (H, B, K) float32.
        """
        partitions = None if self.shape.folds == 1 else ops.reshape(fold, (1,))
        return self.probabilities(weights, steps, settings, features, partitions)


def _in_training(passes: Passes) -> Callable[..., Any]:
    return lambda hidden, norm, present: passes.forward(hidden, norm, present, training=True)


def _in_use(passes: Passes) -> Callable[..., Any]:
    return lambda hidden, norm, present: passes.forward(hidden, norm, present, training=False)[0]
