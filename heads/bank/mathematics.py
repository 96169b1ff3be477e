"""Many heads in one set of arrays: forward, loss, gradients, update (docs/bank.md).

Pure functions of explicit arrays in ``keras.ops``. The backward pass is written out: it recomputes what is cheap (the
activations, the dropout masks) instead of keeping it, and stops at the first layer's weights, since nobody asks for the
gradient of the features. What is slow decides the layout: channels are the leading axis everywhere and positions come
before rows, so that the products, the element-wise passes, the sums of a channel and those over its positions all run
over contiguous memory and nothing is transposed.

Here the pieces are put together: ``page_passes``, ``dense_layers`` and ``update`` hold what lies between the products.
In shapes, as in ``heads.bank.state``: P pages, T tiles and H slots of a partition, M pages and N = 16·M channels of a
lane, C channels of a bottleneck, S positions, B rows, Q values of a channel that pooling leaves, U units, V units of a
tile, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from heads.bank.dense_layers import DenseLayers, Errors
from heads.bank.first_layer import FirstLayer
from heads.bank.page_passes import PageByPage, Passes, WholePasses
from heads.bank.partition_settings import partition_settings
from heads.bank.places import AllAtOnce, OneByOne
from heads.bank.shape import STATISTICS, BankShape
from heads.bank.state import Active, Arrays, Batch, Gradients, Lane, Norm, PartitionSettings, Settings
from heads.bank.tools import Tools
from heads.bank.update import Update
from heads.model.functions import Tensor
from heads.model.spec import PAGE

_OF_PAGES = tuple(range(1, 9))
"""Sizes of the first layers' products, in eighths: for one fewer, taking pages out costs less than it saves."""
_OF_TILES = (1, 2, 4, 8)
"""Of those of tiles: a size in between saves as much as its gathering costs, and each takes time to compile."""
_OF_POOLED = (4, 8)
"""Of those of pages that pool, which are small."""


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
        self._lanes = [slice(start, start + shape.lane_pages) for start in shape.lane_starts]
        self._product, self._in_use = tools.product, tools.in_use
        layer = FirstLayer(shape, dtype, batch, tools.seal)
        each = OneByOne() if tools.one_by_one else AllAtOnce()
        passes: Passes = PageByPage(layer) if tools.one_by_one else WholePasses(layer)
        dense, update = DenseLayers(shape, dtype, each, batch=batch, seal=tools.seal), Update(shape)
        self._partition_settings = tools.fuse(lambda settings, steps: partition_settings(shape, settings, steps))
        self._forward_training, self._backward = tools.fuse(_training_forward(passes)), tools.fuse(passes.backward)
        self._forward_inference = tools.fuse(_inference_forward(passes))
        self._dense_loss_and_gradients = tools.fuse(dense.loss_and_gradients)
        self._dense_probabilities = tools.fuse(dense.probabilities)
        self._joined_loss_and_gradients, self._joined = tools.join(self._loss_and_gradients), tools.joined
        self.update, self.keep = update.update, update.keep
        self.update_moments, self.update_weights = update.update_moments, update.update_weights

    def gradients(self, weights: Arrays, steps: Tensor, settings: Settings, batch: Batch) -> Gradients:
        """Loss and gradients of every head of a partition on a batch.

        Args:
            weights: Of the partition.
            steps: Its heads' counters, (H,) int32.
            settings: Of the partition, see ``Settings``.
            batch: See ``Batch``.
        """
        lined_up = self._partition_settings(settings, steps)
        hidden = self._first_layers(weights["kernel"], batch.features, lined_up)
        others = {name: array for name, array in weights.items() if name != "kernel"}
        found: Gradients
        found, errors = self._joined_loss_and_gradients(hidden, others, batch.labels, lined_up)
        found.weights["kernel"] = self._first_gradients(errors, batch.features, lined_up)
        return found

    def _loss_and_gradients(
        self, hidden: Sequence[Tensor], weights: Arrays, labels: Tensor, lined_up: PartitionSettings
    ) -> tuple[Gradients, list[Tensor]]:
        """All between the first layers' two products: gradients but those of their kernels, and of ``hidden``."""
        active, norms = self._activations(hidden, weights, lined_up)
        dense, pooled = self._dense_kernels(weights), self._pooled(active)
        sums = self._sums(active, pooled, dense, lined_up)
        of_slots = {name: weights[name] for name in self.shape.slot_arrays}
        loss, errors, gradients = self._dense_loss_and_gradients(*sums, of_slots, labels, lined_up)
        of_dense, back = self._dense_gradients(active, pooled, dense, errors, lined_up)
        gradients |= {name: ops.reshape(array, weights[name].shape) for name, array in of_dense.items()}
        of_hidden, betas = self._errors(hidden, active, back, norms, lined_up)
        statistics: Arrays = {}
        if "beta" in weights:
            gradients["beta"] = self._whole(betas)
            statistics = {name: self._whole([getattr(norm, name) for norm in norms]) for name in STATISTICS}
        return Gradients(loss, gradients, statistics), of_hidden

    def _activations(
        self, hidden: Sequence[Tensor], weights: Arrays, lined_up: PartitionSettings
    ) -> tuple[list[Active], list[Norm | None]]:
        """Each lane's ``Passes.forward`` in training."""
        found = [
            self._forward_training(mine, self._norm(weights, part), lane)
            for mine, part, lane in zip(hidden, self._lanes, lined_up.lanes, strict=True)
        ]
        return [active for active, _ in found], [norm for _, norm in found]

    def _errors(
        self,
        hidden: Sequence[Tensor],
        active: Sequence[Active],
        back: Arrays,
        norms: Sequence[Norm | None],
        lined_up: PartitionSettings,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Each lane's ``Passes.backward``: gradients of ``hidden`` and of beta."""
        found = []
        for mine, had, norm, part, lane in zip(hidden, active, norms, self._lanes, lined_up.lanes, strict=True):
            own = {name: array[part] if name == "pooled" else array for name, array in back.items()}
            found.append(self._backward(mine, own, norm, lane, had.flat if self._joined else None))
        return [error for error, _ in found], [beta for _, beta in found]

    def _whole(self, lanes: Sequence[Tensor]) -> Tensor:
        """Puts arrays of lanes, (M, ...) each, together: (P, ...), each page as its own lane has it."""
        if len(lanes) == 1:
            return lanes[0]
        firsts = [lane * self.shape.lane_pages - part.start for lane, part in enumerate(self._lanes)]
        return ops.concatenate([array[first:] for array, first in zip(lanes, firsts, strict=True)], axis=0)

    def _first_layers(self, kernel: Tensor, features: Tensor, lined_up: PartitionSettings) -> list[Tensor]:
        return [
            self._first_layer(kernel[part], features, lane)
            for part, lane in zip(self._lanes, lined_up.lanes, strict=True)
        ]

    def _first_gradients(self, errors: Sequence[Tensor], features: Tensor, lined_up: PartitionSettings) -> Tensor:
        lanes = zip(errors, lined_up.lanes, strict=True)
        return self._whole([self._first_gradient(error, features, lane) for error, lane in lanes])

    def _first_layer(self, kernel: Tensor, features: Tensor, lane: Lane) -> Tensor:
        """The convolutions of a lane: kernel (M, 16, C) and features (S·B, C) to (N, S·B), products' dtype."""

        def convolve(kernel: Tensor) -> Tensor:
            flat = ops.reshape(ops.cast(kernel, self.dtype), (-1, kernel.shape[-1]))
            found = self._product(flat, features, transpose_b=True)  # (N, C) x (C, S·B)
            return ops.reshape(found, (-1, PAGE, features.shape[0]))

        hidden = self._in_use(convolve, lane.used, _OF_PAGES, kernel)
        return ops.reshape(hidden, (-1, features.shape[0]))

    def _first_gradient(self, error: Tensor, features: Tensor, lane: Lane) -> Tensor:
        """Gradient of a lane's kernels, (M, 16, C) in the products' dtype, of that of the convolutions."""

        def multiply(error: Tensor) -> Tensor:
            flat = ops.reshape(error, (-1, features.shape[0]))
            return ops.reshape(self._product(flat, features), (-1, PAGE, features.shape[1]))  # (N, S·B) x (S·B, C)

        paged = ops.reshape(error, (-1, PAGE, features.shape[0]))
        return self._in_use(multiply, lane.used, _OF_PAGES, paged)

    def _norm(self, weights: Arrays, part: slice) -> Norm | None:
        return Norm(*(weights[name][part] for name in ("beta", *STATISTICS))) if "beta" in weights else None

    def _dense_kernels(self, weights: Arrays) -> Arrays:
        """Kernels of the first dense layers: ``tiles`` (T, 16·S, V) and ``pooled`` (P, 16·Q, U), products' dtype."""
        kernels: Arrays = {}
        if "tiles" in weights:
            wide = ops.cast(weights["tiles"], self.dtype)
            kernels["tiles"] = ops.reshape(wide, (-1, PAGE * self.shape.positions, self.shape.tile_units))
        if "pooled" in weights:
            kernels["pooled"] = ops.cast(weights["pooled"], self.dtype)
        return kernels

    def _pooled(self, active: Sequence[Active]) -> Tensor | None:
        """What pooling leaves of all pages, (P, 16·Q, B)."""
        return self._whole([one.pooled for one in active]) if self.shape.pools else None

    def _sums(
        self, active: Sequence[Active], pooled: Tensor | None, dense: Arrays, lined_up: PartitionSettings
    ) -> tuple[Tensor | None, Tensor | None]:
        """What tiles (T, V, B) and pages of heads that pool (P, U, B) add to the first dense layers."""
        of_tiles = of_pooled = None
        if "tiles" in dense:  # (T, V, 16·S) x (T, 16·S, B)
            multiply = self._with_pages(active, lined_up, lambda flat, kernel: self._transposed_times(kernel, flat))
            used, of_pages = lined_up.used_tiles, lined_up.tiles["page"]
            of_tiles = self._in_use(multiply, used, _OF_TILES, of_pages, dense["tiles"], in_order=True)
        if "pooled" in dense:  # (P, U, 16·Q) x (P, 16·Q, B)
            used = lined_up.used_pooled
            of_pooled = self._in_use(self._transposed_times, used, _OF_POOLED, dense["pooled"], pooled)
        return of_tiles, of_pooled

    def _dense_gradients(
        self,
        active: Sequence[Active],
        pooled: Tensor | None,
        dense: Arrays,
        errors: Errors,
        lined_up: PartitionSettings,
    ) -> tuple[Arrays, Arrays]:
        """Gradients of the first dense layers' kernels, and of what these multiply: (T, 16·S, B) and (P, 16·Q, B)."""
        of_kernels, back = {}, {}
        if "tiles" in dense:  # (T, 16·S, B) x (T, B, V), and (T, 16·S, V) x (T, V, B)
            both = self._gradients_by(self._with_pages(active, lined_up, self._product))
            arrays = lined_up.tiles["page"], dense["tiles"], errors.tiles
            found = self._in_use(both, lined_up.used_tiles, _OF_TILES, *arrays, in_order=True)
            of_kernels["tiles"], back["tiles"] = found
        if "pooled" in dense:  # (P, 16·Q, B) x (P, B, U), and (P, 16·Q, U) x (P, U, B)
            both, arrays = self._gradients_by(self._product), (pooled, dense["pooled"], errors.pooled)
            of_kernels["pooled"], back["pooled"] = self._in_use(both, lined_up.used_pooled, _OF_POOLED, *arrays)
        return of_kernels, back

    def _gradients_by(self, product: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
        """Both gradients of a dense layer, its kernels' by a product of their own.

        They are one piece of work: a program in which the second may be at any time could not make the way back in the
        activations' memory, which the first reads.
        """
        return lambda inputs, kernel, error: (product(inputs, error), self._times_transposed(kernel, error))

    def _with_pages(
        self, active: Sequence[Active], lined_up: PartitionSettings, product: Callable[[Tensor, Tensor], Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """A product of what the pages of tiles, (n,), hold, (n, 16·S, B), with another factor of each tile.

        Of several lanes the tiles have to come lane by lane, as ``used_tiles`` lists them.
        """

        def multiply(pages: Tensor, others: Tensor) -> Tensor:
            if len(active) == 1:
                return product(ops.take(active[0].flat, pages, axis=0), others)
            found: list[Tensor] = []
            begin: Tensor = 0
            for number, (mine, part, lane) in enumerate(zip(active, self._lanes, lined_up.lanes, strict=True)):
                end = None if number + 1 == len(active) else begin + lane.tiles  # the last takes what nobody owns, too
                places = ops.maximum(pages[begin:end] - part.start, 0)
                found.append(product(ops.take(mine.flat, places, axis=0), others[begin:end]))
                begin = end
            return ops.concatenate(found, axis=0)

        return multiply

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
        lined_up = self._partition_settings(settings, steps)
        hidden = self._first_layers(weights["kernel"], features, lined_up)
        active = [
            self._forward_inference(mine, self._norm(weights, part), lane)
            for mine, part, lane in zip(hidden, self._lanes, lined_up.lanes, strict=True)
        ]
        tiles, pooled = self._sums(active, self._pooled(active), self._dense_kernels(weights), lined_up)
        of_slots = {name: weights[name] for name in self.shape.slot_arrays}
        return self._dense_probabilities(tiles, pooled, of_slots, lined_up)


def _training_forward(passes: Passes) -> Callable[..., Any]:
    return lambda hidden, norm, lane: passes.forward(hidden, norm, lane, training=True)


def _inference_forward(passes: Passes) -> Callable[..., Any]:
    return lambda hidden, norm, lane: passes.forward(hidden, norm, lane, training=False)[0]
