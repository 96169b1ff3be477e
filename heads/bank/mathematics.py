"""Many heads in one set of arrays: forward, loss, gradients, update (docs/bank.md).

Pure functions of explicit arrays in ``keras.ops``. The backward pass is written out: it recomputes what is cheap (the
activations, the dropout masks) instead of keeping it, and stops at the first layer's weights, since nobody asks for the
gradient of the features. What is slow decides the layout: channels are the leading axis everywhere, so that the
product, the element-wise passes and the per-channel sums all run over contiguous memory and nothing is transposed.

Here the pieces are put together: ``first_layer``, ``dense_layers`` and ``update`` hold what lies between the products.
Letters in shapes are those of ``heads.bank.state``.
"""

from __future__ import annotations

from keras import ops

from heads.bank.dense_layers import DenseLayers
from heads.bank.first_layer import FirstLayer
from heads.bank.functions import Tensor
from heads.bank.partitions import Partitions
from heads.bank.shape import STATISTICS, BankShape
from heads.bank.state import Arrays, Batch, Gradients, Norm, Settings
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
    """

    def __init__(self, shape: BankShape, dtype: str, tools: Tools) -> None:
        self.shape, self.dtype, self._product = shape, dtype, tools.product
        self.partitions = Partitions(shape)
        first, dense, update = FirstLayer(shape, dtype), DenseLayers(shape, dtype), Update(self.partitions)
        self._present = tools.fuse(self.partitions.present)
        self._activate, self._deactivate = tools.fuse(first.activate), tools.fuse(first.deactivate)
        self._normalise = tools.fuse(first.normalise)
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
        beta = ops.reshape(mine["beta"], (-1,)) if "beta" in mine else None
        active, norm = self._activate(hidden, beta, present.channels)
        dense = ops.cast(mine["dense"], self.dtype)
        sums = self._product(active, dense)
        of_slots = {name: mine[name] for name in self.shape.slot_arrays}
        loss, error, gradients = self._classify(sums, of_slots, batch.labels, present)
        gradients["dense"] = self._product(active, error, transpose_a=True)
        error = self._product(error, dense, transpose_b=True)
        error, beta_error = self._deactivate(hidden, error, norm, present.channels)
        gradients["kernel"] = ops.reshape(self._product(error, batch.features), mine["kernel"].shape)
        if norm is None:
            return Gradients(loss, gradients, {})
        gradients["beta"] = _in_pages(beta_error)
        return Gradients(loss, gradients, {"mean": _in_pages(norm.mean), "variance": _in_pages(norm.variance)})

    def _first_layer(self, kernel: Tensor, features: Tensor) -> Tensor:
        """The convolutions of all heads: kernel (G·P, 16, C) and features (B·S, C) to (N, B·S), products' dtype."""
        flat = ops.reshape(ops.cast(kernel, self.dtype), (-1, kernel.shape[-1]))
        return self._product(flat, features, transpose_b=True)

    def probabilities(
        self, weights: Arrays, steps: Tensor, settings: Settings, features: Tensor, partitions: Tensor | None
    ) -> Tensor:
        """Class probabilities (G·H, B, K) float32 of the heads in the chosen partitions, without dropout."""
        present = self._present(settings, steps, partitions)
        mine = {name: self.partitions.select(array, partitions) for name, array in weights.items()}
        hidden = self._first_layer(mine["kernel"], features)
        norm = Norm(*(ops.reshape(mine[name], (-1,)) for name in ("beta", *STATISTICS))) if "beta" in mine else None
        active = self._normalise(hidden, norm, present.channels)
        sums = self._product(active, ops.cast(mine["dense"], self.dtype))
        return self._decide(sums, {name: mine[name] for name in self.shape.slot_arrays}, present)

    def predict(self, weights: Arrays, steps: Tensor, settings: Settings, views: list[Tensor], fold: Tensor) -> Tensor:
        """Predicts rows with the heads of one fold, averaged over the views; the host scores what comes of it.

        Args:
            weights: The state's.
            steps: The state's counter.
            settings: See ``Settings``.
            views: Features of each view, (B·S, C) in the products' dtype.
            fold: int32 scalar: whose heads; without meaning where there is one fold.

        Returns:
            (H, B, K) float32.
        """
        partitions = None if self.shape.folds == 1 else ops.reshape(fold, (1,))
        found = [self.probabilities(weights, steps, settings, view, partitions) for view in views]
        return sum(found[1:], found[0]) / len(found)


def _in_pages(of_channels: Tensor) -> Tensor:
    return ops.reshape(of_channels, (-1, PAGE))
