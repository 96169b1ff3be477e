"""The dense layers of all heads, from the sums of the first to the loss, and the way back.

Letters in shapes are those of ``heads.bank.state``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from keras import ops

from heads.bank.dropout import kept, keys
from heads.bank.functions import Tensor, activate, slopes
from heads.bank.shape import BankShape
from heads.bank.state import Arrays, Present


class DenseLayers:
    """What follows the pooling, head by head.

    Args:
        shape: The bank's.
        dtype: Of the operands and results of products.
    """

    def __init__(self, shape: BankShape, dtype: str) -> None:
        self.shape, self.dtype = shape, dtype

    def classify(
        self, sums: Tensor, weights: Arrays, labels: Tensor, present: Present
    ) -> tuple[Tensor, Tensor, Arrays]:
        """Everything from the first dense layer's partial sums to the loss, and back.

        Args:
            sums: (G·P, 16, B, U) in the products' dtype: what each channel adds to the first dense layer.
            weights: The slots' arrays.
            labels: (B,) int32.
            present: See ``Present``.

        Returns:
            Loss (G·H,) float32; gradient of the sums of each page, (G·P, 1, B, U) in the products' dtype; gradients of
            the slots' arrays, float32.
        """
        shape, slots = self.shape, present.slots
        layers = self._dense_layers(sums, weights, present, training=True)
        logits = layers[-1].outputs
        smoothing = slots["label_smoothing"][:, None, None]
        target = ops.one_hot(labels, shape.classes, dtype="float32")[None] * (1 - smoothing) + smoothing / shape.classes
        # The class scores, not the probabilities, as Keras does behind a softmax on TensorFlow: on other backends it
        # clips the probabilities at 1e-7, which takes the gradient from just those rows that are most wrong.
        counts = ops.take(present.class_weight, labels, axis=0)[None]
        loss = ops.mean(-ops.sum(target * ops.log_softmax(logits), axis=-1) * counts, axis=-1)
        error = (ops.softmax(logits) - target) * counts[..., None] / shape.batch
        taken = slots["taken"]
        error = ops.where(taken[:, None, None], error, 0.0)
        error, gradients = self._dense_gradients(layers, weights, error, slots)
        of_pages = ops.where(present.owned[:, None, None], ops.take(error, present.owner, axis=0), 0.0)
        return ops.where(taken, loss, 0.0), ops.cast(of_pages, self.dtype)[:, None], gradients

    def _dense_layers(self, sums: Tensor, weights: Arrays, present: Present, *, training: bool) -> list[_Layer]:
        """Runs the layers behind the first; the last one's outputs are the class scores (G·H, B, K)."""
        shape, slots = self.shape, present.slots
        of_pages = ops.sum(ops.cast(sums, "float32"), axis=1)
        heads = present.slots["taken"].shape[0]
        owner = ops.where(present.owned, present.owner, heads)  # one segment more, for what nobody owns
        total = ops.segment_sum(of_pages, owner, num_segments=heads + 1)[:heads] + weights["dense_bias"][:, None]
        layers = [_Layer(None, None, total)]
        for number in range(1, shape.dense_layers + 1):
            before = layers[-1].outputs
            inputs = activate(shape.activations, slots["activation"], before)
            mask = None
            if training and shape.dense_dropout:
                mask = self._dense_mask(slots, number)
                inputs = ops.where(mask, inputs, 0.0) / (1 - slots["dense_dropout"])[:, None, None]
            if number > 1:  # a head of one hidden layer has none here
                inputs = ops.where((slots["dense_layers"] > 1)[:, None, None], inputs, layers[-1].inputs)
            name = "hidden" if number < shape.dense_layers else "out"
            outputs = ops.matmul(inputs, weights[name]) + weights[f"{name}_bias"][:, None]
            layers.append(_Layer(inputs, mask, outputs))
        if shape.dense_layers:
            deep = (slots["dense_layers"] > 0)[:, None, None]
            last = layers.pop()
            layers.append(last._replace(outputs=ops.where(deep, last.outputs, total[..., : shape.classes])))
        else:
            layers[0] = layers[0]._replace(outputs=total[..., : shape.classes])
        return layers

    def _dense_gradients(
        self, layers: list[_Layer], weights: Arrays, error: Tensor, slots: Arrays
    ) -> tuple[Tensor, Arrays]:
        """The way back through ``_dense_layers``: gradients of the first sums (G·H, B, U) and of the weights."""
        shape = self.shape
        padding = [[0, 0], [0, 0], [0, shape.units - shape.classes]]
        direct = ops.pad(error, padding)  # of heads without hidden layers
        gradients: Arrays = {}
        skipped: Tensor = 0.0
        for number in range(shape.dense_layers, 0, -1):
            name, least = ("hidden", 1) if number < shape.dense_layers else ("out", 0)
            used = (slots["dense_layers"] > least)[:, None, None]
            error = ops.where(used, error, 0.0)
            inputs, mask, _ = layers[number]
            gradients[name] = ops.where(used, ops.matmul(ops.swapaxes(inputs, 1, 2), error), 0.0)
            gradients[f"{name}_bias"] = ops.sum(error, axis=1)
            error = ops.matmul(error, ops.swapaxes(weights[name], 1, 2))
            if number > 1:
                both = (slots["dense_layers"] > 1)[:, None, None]
                skipped, error = ops.where(both, 0.0, error), ops.where(both, error, 0.0)
            elif shape.dense_layers > 1:
                error = error + skipped
            if mask is not None:
                error = ops.where(mask, error, 0.0) / (1 - slots["dense_dropout"])[:, None, None]
            error = error * slopes(shape.activations, slots["activation"], layers[number - 1].outputs)
        if shape.dense_layers:
            direct = ops.where((slots["dense_layers"] > 0)[:, None, None], error, direct)
        gradients["dense_bias"] = ops.sum(direct, axis=1)
        return direct, gradients

    def _dense_mask(self, slots: Arrays, number: int) -> Tensor:
        """(G·H, B, U) bool: the outputs of a hidden layer that are kept."""
        units = np.arange(self.shape.units, dtype=np.int32)
        key = keys(slots["seed"][:, None], slots["steps"][:, None], units, layer=number)
        rates = ops.broadcast_to(slots["dense_dropout"][:, None], key.shape)
        return ops.swapaxes(kept(key, rates, self.shape.batch), 1, 2)

    def decide(self, sums: Tensor, weights: Arrays, present: Present) -> Tensor:
        """``classify`` as in use: probabilities (G·H, B, K) float32."""
        return ops.softmax(self._dense_layers(sums, weights, present, training=False)[-1].outputs)


class _Layer(NamedTuple):
    """A dense layer behind the convolution: (G·H, B, units) each.

    Attributes:
        inputs: What its kernel is multiplied with; None for the first, whose inputs lie in pages.
        mask: Which of the inputs dropout kept; None without dropout.
        outputs: Its sums, before the activation.
    """

    inputs: Tensor | None
    mask: Tensor | None
    outputs: Tensor
