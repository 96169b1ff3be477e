"""The dense layers of all heads, from the sums of the first to the loss, and the way back.

Letters in shapes are those of ``heads.bank.state``. A head's values lie unit by unit: (U, B).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from keras import ops

from heads.bank.dropout import kept, keys
from heads.bank.functions import Function, Seal, activations, as_deep, choose, slopes, unsealed
from heads.bank.places import Each, Sizes
from heads.bank.shape import BankShape
from heads.bank.state import Arrays, PartitionSettings
from heads.model.functions import Tensor

_NUMBERS = ("activation", "dense_layers", "label_smoothing", "dense_dropout", "seed", "steps", "taken")


class Errors(NamedTuple):
    """Gradients of the first dense layer's sums in the products' dtype; None where there are no such sums.

    Attributes:
        tiles: (T, B, V).
        pooled: (P, B, U).
    """

    tiles: Tensor | None
    pooled: Tensor | None


class DenseLayers:
    """What follows the pooling, head by head.

    Args:
        shape: The bank's.
        dtype: Of the operands and results of products.
        each: How heads are run through.
        batch: Rows of a batch, where these are others than the training's.
        seal: See ``heads.bank.functions.choose``.
    """

    def __init__(
        self, shape: BankShape, dtype: str, each: Each, *, batch: int | None = None, seal: Seal = unsealed
    ) -> None:
        self.shape, self.dtype, self._each, self.batch = shape, dtype, each, batch or shape.batch
        self._choose = partial(choose, seal=seal)

    def loss_and_gradients(
        self, tiles: Tensor | None, pooled: Tensor | None, weights: Arrays, labels: Tensor, lined_up: PartitionSettings
    ) -> tuple[Tensor, Errors, Arrays]:
        """Everything from the first dense layer's partial sums to the loss, and back.

        Args:
            tiles: (T, V, B) in the products' dtype: what each tile adds to the first dense layer; None where no head
                flattens.
            pooled: (P, U, B) likewise: what each page of heads that pool adds.
            weights: The slots' arrays.
            labels: (B,) int32.
            lined_up: See ``PartitionSettings``.

        Returns:
            Loss (H,) float32; gradients of the sums; gradients of the slots' arrays, float32.
        """
        shape = self.shape
        onehot = ops.one_hot(labels, shape.classes, axis=0, dtype="float32")
        counts = ops.take(lined_up.class_weight, labels, axis=0)
        slots = {name: lined_up.slots[name] for name in _NUMBERS} | weights
        slots["sums"] = self._totals(tiles, pooled, weights, lined_up)
        sizes = {name: array.shape[1:] for name, array in weights.items()}
        results = {"loss": (), "error": (self.batch, shape.units), **sizes}

        def head(of_head: Arrays) -> Arrays:
            depths = [
                partial(self._loss_and_gradients, depth, of_head, onehot, counts)
                for depth in range(shape.dense_layers + 1)
            ]
            chosen: Arrays = self._choose(depths, of_head["dense_layers"])
            return chosen

        found = self._each.run(head, slots, lined_up.used_slots, results)
        taken = lined_up.slots["taken"]
        found = {name: ops.where(as_deep(taken, array), array, 0.0) for name, array in found.items()}
        return found.pop("loss"), self._errors(found.pop("error"), lined_up), found

    def probabilities(
        self, tiles: Tensor | None, pooled: Tensor | None, weights: Arrays, lined_up: PartitionSettings
    ) -> Tensor:
        """Class probabilities, (H, B, K) float32, of the same sums; nothing is dropped."""
        shape = self.shape
        slots = {name: lined_up.slots[name] for name in _NUMBERS} | weights
        slots["sums"] = self._totals(tiles, pooled, weights, lined_up)

        def head(of_head: Arrays) -> Arrays:
            depths = [partial(self._probabilities, depth, of_head) for depth in range(shape.dense_layers + 1)]
            chosen: Arrays = self._choose(depths, of_head["dense_layers"])
            return chosen

        results: Sizes = {"probabilities": (self.batch, shape.classes)}
        return self._each.run(head, slots, lined_up.used_slots, results)["probabilities"]

    def _totals(
        self, tiles: Tensor | None, pooled: Tensor | None, weights: Arrays, lined_up: PartitionSettings
    ) -> Tensor:
        """Sums of the first dense layer of each head, (H, U, B) float32."""
        shape = self.shape
        heads = lined_up.slots["taken"].shape[0]
        total = weights["dense_bias"][:, :, None]
        if tiles is not None:
            rows = heads * shape.tiles_in_page
            row = ops.where(lined_up.tiles["owned"], lined_up.tiles["row"], rows)  # one more, for what nobody owns
            sums = ops.segment_sum(ops.cast(tiles, "float32"), row, num_segments=rows + 1)[:rows]
            total = total + ops.reshape(sums, (heads, -1, self.batch))[:, : shape.units]
        if pooled is not None:
            owner = ops.where(self._pooling(lined_up), lined_up.pages["owner"], heads)
            total = total + ops.segment_sum(ops.cast(pooled, "float32"), owner, num_segments=heads + 1)[:heads]
        return total

    def _errors(self, error: Tensor, lined_up: PartitionSettings) -> Errors:
        """(H, B, U) float32 to what tiles and pages have of it; zeros for what nobody owns."""
        shape = self.shape
        tiles = pooled = None
        if shape.flattens:
            padding = shape.tiles_in_page * shape.tile_units - shape.units
            cut = ops.pad(error, [[0, 0], [0, 0], [0, padding]])
            cut = ops.reshape(cut, (-1, self.batch, shape.tiles_in_page, shape.tile_units))
            cut = ops.reshape(ops.transpose(cut, (0, 2, 1, 3)), (-1, self.batch, shape.tile_units))
            owned = lined_up.tiles["owned"][:, None, None]
            tiles = ops.cast(ops.where(owned, ops.take(cut, lined_up.tiles["row"], axis=0), 0.0), self.dtype)
        if shape.pools:
            of_pages = ops.take(error, lined_up.pages["owner"], axis=0)
            pooled = ops.cast(ops.where(self._pooling(lined_up)[:, None, None], of_pages, 0.0), self.dtype)
        return Errors(tiles, pooled)

    def _pooling(self, lined_up: PartitionSettings) -> Tensor:
        """(P,) bool: pages of heads that pool."""
        return ops.logical_and(lined_up.pages["owned"], lined_up.pages["pooled"])

    # --- a head, or all of them: arrays (..., U, B), numbers (...,) ----------------------------------------------

    def _loss_and_gradients(self, depth: int, head: Arrays, onehot: Tensor, counts: Tensor) -> Arrays:
        """Loss and gradients of heads of so many hidden layers."""
        shape = self.shape
        layers = self._layers(depth, head, training=True)
        logits = layers[-1].outputs
        smoothing = head["label_smoothing"][..., None, None]
        target = onehot * (1 - smoothing) + smoothing / shape.classes
        # The class scores, not the probabilities, as Keras does behind a softmax on TensorFlow: on other backends it
        # clips the probabilities at 1e-7, which takes the gradient from just those rows that are most wrong.
        loss = ops.mean(-ops.sum(target * ops.log_softmax(logits, axis=-2), axis=-2) * counts, axis=-1)
        error = (ops.softmax(logits, axis=-2) - target) * counts / self.batch
        gradients = self._back(depth, layers, head, error)
        return {"loss": loss, **gradients}

    def _probabilities(self, depth: int, head: Arrays) -> Arrays:
        logits = self._layers(depth, head, training=False)[-1].outputs
        return {"probabilities": ops.softmax(ops.swapaxes(logits, -1, -2))}

    def _layers(self, depth: int, head: Arrays, *, training: bool) -> list[_Layer]:
        """The first layer's sums and the layers behind it; the last one's outputs are the class scores (..., K, B)."""
        layers = [_Layer(None, None, head["sums"])]
        for number in range(1, depth + 1):
            inputs = self._chosen(activations, head, layers[-1].outputs)
            mask = None
            if training and self.shape.dense_dropout:
                mask = self._mask(head, number)
                inputs = ops.where(mask, inputs, 0.0) / (1 - head["dense_dropout"])[..., None, None]
            name = self._name(number, depth)
            outputs = ops.matmul(ops.swapaxes(head[name], -1, -2), inputs) + head[f"{name}_bias"][..., None]
            layers.append(_Layer(inputs, mask, outputs))
        if not depth:
            layers[0] = layers[0]._replace(outputs=head["sums"][..., : self.shape.classes, :])
        return layers

    def _back(self, depth: int, layers: list[_Layer], head: Arrays, error: Tensor) -> Arrays:
        """The way back through ``_layers``: ``error`` of the first sums, (..., B, U), and of the head's arrays."""
        gradients = {name: ops.zeros_like(head[name]) for name in self.shape.slot_arrays}
        for number in range(depth, 0, -1):
            name = self._name(number, depth)
            inputs, mask, _ = layers[number]
            gradients[name] = ops.matmul(inputs, ops.swapaxes(error, -1, -2))
            gradients[f"{name}_bias"] = ops.sum(error, axis=-1)
            error = ops.matmul(head[name], error)
            if mask is not None:
                error = ops.where(mask, error, 0.0) / (1 - head["dense_dropout"])[..., None, None]
            error = error * self._chosen(slopes, head, layers[number - 1].outputs)
        if not depth:
            before = [[0, 0]] * (len(error.shape) - 2)
            error = ops.pad(error, [*before, [0, self.shape.units - self.shape.classes], [0, 0]])
        gradients["dense_bias"] = ops.sum(error, axis=-1)
        return {**gradients, "error": ops.swapaxes(error, -1, -2)}

    def _chosen(self, functions: Callable[..., list[Function]], head: Arrays, values: Tensor) -> Tensor:
        return self._choose(functions(self.shape.activations), head["activation"], values)

    def _name(self, number: int, depth: int) -> str:
        return "hidden" if number < depth else "out"

    def _mask(self, head: Arrays, number: int) -> Tensor:
        """(..., U, B) bool: the outputs of a hidden layer that are kept."""
        units = np.arange(self.shape.units, dtype=np.int32)
        key = keys(head["seed"][..., None], head["steps"][..., None], units, layer=number)
        rates = ops.broadcast_to(head["dense_dropout"][..., None], key.shape)
        return kept(key, rates, np.arange(self.batch))


class _Layer(NamedTuple):
    """A dense layer behind the convolution: (..., units, B) each.

    Attributes:
        inputs: What its kernel is multiplied with; None for the first, whose inputs lie in pages.
        mask: Which of the inputs dropout kept; None without dropout.
        outputs: Its sums, before the activation.
    """

    inputs: Tensor | None
    mask: Tensor | None
    outputs: Tensor
