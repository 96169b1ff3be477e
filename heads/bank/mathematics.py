"""Many heads in one set of arrays: forward, loss, gradients, update (docs/bank.md).

Pure functions of explicit arrays in ``keras.ops``. The backward pass is written out: it recomputes what is cheap (the
activations, the dropout masks) instead of keeping it, and stops at the first layer's weights, since nobody asks for the
gradient of the features. What is slow decides the layout: channels are the leading axis everywhere, so that the
product, the element-wise passes and the per-channel sums all run over contiguous memory and nothing is transposed.

Letters in shapes: F folds, P pages and H slots of a partition, C channels of a bottleneck, S positions, B rows of a
batch, U units, K classes; G partitions computed at once (all but the one that sits out), N = G·P·16 channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from keras import ops

from heads.bank.dropout import kept, keys
from heads.bank.functions import ACTIVATIONS, POOLINGS, SLOPES, UNPOOLINGS, Tensor, as_deep, by_code
from heads.bank.shape import STATISTICS, BankShape
from heads.model.spec import ADAM_EPSILON, PAGE
from heads.model.weights import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM

ADAM_BETAS = (0.9, 0.999)


Arrays = dict[str, Tensor]


State = dict[str, Arrays]
"""``weights``, ``first`` and ``second`` (Adam's moments), ``best`` (weights kept), each by name, and ``counters``:
``steps`` (F, H) int32. Arrays in pages are (F, P, ...), those of slots (F, H, ...), float32: ``BankShape.page_arrays``
and ``slot_arrays``. Padding, free pages and free slots hold zeros."""


Settings = Arrays
"""Numbers constant within an epoch. Of the heads: ``owner`` and ``page_in_head`` (P,) int32; (H,) each of
``hyperparameters``; (F, H) ``learning_rate`` float32 and ``seed`` int32. Of the study: ``class_weight`` (K,) float32.
"""


class Tools(Protocol):
    """What the bank needs beyond ``keras.ops``, where backends differ in speed and not in meaning."""

    def product(self, a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
        """Product over the last two axes, batched over the others; result in the operands' dtype."""

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function compiled as one pass over memory, or as it is."""


class PlainTools:
    """``keras.ops`` as they are: for eager use, and where the caller compiles the whole program."""

    def product(self, a: Tensor, b: Tensor, *, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
        """See ``Tools``."""
        return ops.matmul(ops.swapaxes(a, -1, -2) if transpose_a else a, ops.swapaxes(b, -1, -2) if transpose_b else b)

    def fuse(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See ``Tools``."""
        return function


class Present(NamedTuple):
    """The partitions that are computed, as one bank of G·P pages and G·H slots.

    Attributes:
        owner: (G·P,) int32 slot of each page; of a free page, any.
        owned: (G·P,) bool.
        slots: (G·H,) each: hyperparameters.
        channels: (N,) each: ``activation`` and ``pooling`` int32, ``batch_norm`` bool, ``dropout`` float32, ``key``
            uint32.
        class_weight: (K,) float32: what a row of each class counts in the loss.
    """

    owner: Tensor
    owned: Tensor
    slots: Arrays
    channels: Arrays
    class_weight: Tensor


class Batch(NamedTuple):
    """Rows to train on.

    Attributes:
        features: (B·S, C) in the products' dtype.
        labels: (B,) int32.
        fold: int32 scalar: the fold that the rows are drawn from; without meaning where there is one.
    """

    features: Tensor
    labels: Tensor
    fold: Tensor


class Norm(NamedTuple):
    """Batch norm of the channels computed, (N,) float32 each."""

    beta: Tensor
    mean: Tensor
    variance: Tensor


class Gradients(NamedTuple):
    """What one batch yields for the partitions computed.

    Attributes:
        loss: (G·H,) float32.
        weights: Gradient of each trained array, (G·P, ...) or (G·H, ...), in the products' dtype or float32.
        statistics: ``mean`` and ``variance`` of the batch, (G·P, 16) float32; empty without batch norm.
    """

    loss: Tensor
    weights: Arrays
    statistics: Arrays


def zero_state(shape: BankShape, zeros: Callable[[tuple[int, ...], str], Tensor]) -> State:
    """Returns the state of an empty bank; ``zeros`` makes an array of a shape and dtype."""
    places = {**dict.fromkeys(shape.page_arrays, shape.pages), **dict.fromkeys(shape.slot_arrays, shape.slots)}
    sizes = {**shape.page_arrays, **shape.slot_arrays}
    state: State = {
        part: {name: zeros((shape.folds, places[name], *sizes[name]), "float32") for name in names}
        for part, names in shape.state_parts.items()
    }
    state["counters"] = {"steps": zeros((shape.folds, shape.slots), "int32")}
    return state


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
        passes = (self.present, self.activate, self.deactivate, self.classify, self.update, self.normalise, self.decide)
        self._fused = {function.__name__: tools.fuse(function) for function in passes}

    # --- which partitions -------------------------------------------------------------------------------------

    def others(self, fold: Tensor) -> Tensor | None:
        """Partitions that train on a batch of ``fold`` (int32 scalar): (F - 1,), or None for the only one."""
        folds = self.shape.folds
        return None if folds == 1 else ops.mod(fold + 1 + np.arange(folds - 1, dtype=np.int32), folds)

    def select(self, array: Tensor, partitions: Tensor | None) -> Tensor:
        """(F, n, ...) to the chosen partitions side by side, (G·n, ...); None chooses all."""
        if partitions is not None:
            array = ops.take(array, partitions, axis=0)
        return ops.reshape(array, (-1, *array.shape[2:]))

    def spread(self, array: Tensor, fold: Tensor) -> Tensor:
        """Undoes ``select(..., others(fold))``: (G·n, ...) to (F, n, ...); partition ``fold`` gets anything."""
        folds = self.shape.folds
        groups = max(1, folds - 1)
        array = ops.reshape(array, (groups, array.shape[0] // groups, *array.shape[1:]))
        if folds == 1:
            return array
        places = ops.mod(np.arange(folds, dtype=np.int32) - fold - 1 + folds, folds)
        return ops.take(array, ops.minimum(places, folds - 2), axis=0)

    def present(self, settings: Settings, steps: Tensor, partitions: Tensor | None) -> Present:
        """Lines up the settings of the chosen partitions, page by page and channel by channel."""
        shape = self.shape
        groups = shape.folds if partitions is None else partitions.shape[0]
        per_trial = {name: settings[name] for name in settings if name not in _NOT_PER_TRIAL}
        slots = {name: ops.tile(vector, (groups,)) for name, vector in per_trial.items()}
        slots |= {name: self.select(settings[name], partitions) for name in ("learning_rate", "seed")}
        slots["steps"] = self.select(steps, partitions)
        owner = ops.maximum(settings["owner"], 0)[None] + shape.slots * np.arange(groups, dtype=np.int32)[:, None]
        owner = ops.reshape(owner, (-1,))
        wanted = ("activation", "pooling", "batch_norm", "dropout", "seed", "steps")
        channels = {name: _per_channel(ops.take(slots[name], owner, axis=0)) for name in wanted}
        place = settings["page_in_head"][:, None] * PAGE + np.arange(PAGE, dtype=np.int32)
        place = ops.tile(ops.reshape(place, (-1,)), (groups,))
        channels["key"] = keys(channels.pop("seed"), channels.pop("steps"), place, layer=0)
        owned = ops.tile(settings["owner"] >= 0, (groups,))
        return Present(owner, owned, slots, channels, settings["class_weight"])

    # --- training ---------------------------------------------------------------------------------------------

    def gradients(self, weights: Arrays, steps: Tensor, settings: Settings, batch: Batch) -> Gradients:
        """Loss and gradients of every head that trains on a batch.

        Args:
            weights: The state's.
            steps: The state's counter, (F, H) int32.
            settings: See ``Settings``.
            batch: See ``Batch``.
        """
        partitions = self.others(batch.fold)
        present = self._fused["present"](settings, steps, partitions)
        mine = {name: self.select(array, partitions) for name, array in weights.items()}
        hidden = self._first_layer(mine["kernel"], batch.features)
        beta = ops.reshape(mine["beta"], (-1,)) if "beta" in mine else None
        active, norm = self._fused["activate"](hidden, beta, present.channels)
        dense = ops.cast(mine["dense"], self.dtype)
        sums = self._product(active, dense)
        of_slots = {name: mine[name] for name in self.shape.slot_arrays}
        loss, error, gradients = self._fused["classify"](sums, of_slots, batch.labels, present)
        gradients["dense"] = self._product(active, error, transpose_a=True)
        error = self._product(error, dense, transpose_b=True)
        error, beta_error = self._fused["deactivate"](hidden, error, norm, present.channels)
        gradients["kernel"] = ops.reshape(self._product(error, batch.features), mine["kernel"].shape)
        if norm is None:
            return Gradients(loss, gradients, {})
        gradients["beta"] = _in_pages(beta_error)
        return Gradients(loss, gradients, {"mean": _in_pages(norm.mean), "variance": _in_pages(norm.variance)})

    def _first_layer(self, kernel: Tensor, features: Tensor) -> Tensor:
        """The convolutions of all heads: kernel (G·P, 16, C) and features (B·S, C) to (N, B·S), products' dtype."""
        flat = ops.reshape(ops.cast(kernel, self.dtype), (-1, kernel.shape[-1]))
        return self._product(flat, features, transpose_b=True)

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
        error = error * by_code(SLOPES, self.shape.activations, channels["activation"], scaled)
        if norm is None:
            return ops.cast(error, self.dtype), None
        scale = ops.rsqrt(norm.variance + BATCH_NORM_EPSILON)[:, None]
        centred = (values - norm.mean[:, None]) * scale
        beta_error = _row_sums(error)
        along = _row_sums(error * centred)[:, None] / values.shape[1]
        through = (error - beta_error[:, None] / values.shape[1] - centred * along) * scale
        beta_error = self._where_norm(channels, beta_error, ops.zeros_like(beta_error))
        return ops.cast(self._where_norm(channels, through, error), self.dtype), beta_error

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
            inputs = self._activated(before, slots)
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
            error = error * by_code(SLOPES, shape.activations, slots["activation"], layers[number - 1].outputs)
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

    def update(
        self, state: State, gradients: Gradients, settings: Settings, fold: Tensor, losses: Tensor
    ) -> tuple[State, Tensor]:
        """Adam with decoupled weight decay, and the moving statistics; heads that sit out keep every bit.

        Args:
            state: The state, without ``best``.
            gradients: See ``Gradients``.
            settings: See ``Settings``.
            fold: As for ``gradients``.
            losses: (F, H) float32, the sum of the losses so far.

        Returns:
            The new state, and the losses with this batch's added.
        """
        folds = self.shape.folds
        trains = ops.broadcast_to(settings["taken"][None], (folds, self.shape.slots))
        if folds > 1:
            trains = ops.logical_and(trains, (np.arange(folds, dtype=np.int32) != fold)[:, None])
        steps = state["counters"]["steps"] + ops.cast(trains, "int32")
        rate = settings["learning_rate"]
        count = ops.cast(ops.maximum(steps, 1), "float32")
        powers = [ops.power(ops.cast(beta, "float32"), count) for beta in ADAM_BETAS]
        slot = {
            "trains": trains,
            "rate": rate,
            "decay": ops.broadcast_to(settings["weight_decay"][None], rate.shape),
            "alpha": rate * ops.sqrt(1 - powers[1]) / (1 - powers[0]),
            # Moving averages without the bias of their start, see ``heads.model.weights.unbiased``: the first batch
            # counts fully, a late one as much as Keras lets it.
            "share": (1 - BATCH_NORM_MOMENTUM) / (1 - ops.power(ops.cast(BATCH_NORM_MOMENTUM, "float32"), count)),
        }
        owner = ops.maximum(settings["owner"], 0)
        page = {name: ops.take(vector, owner, axis=1) for name, vector in slot.items()}
        page["trains"] = ops.logical_and(page["trains"], (settings["owner"] >= 0)[None])
        new: State = {"weights": dict(state["weights"]), "first": {}, "second": {}, "counters": {"steps": steps}}
        for name in self.shape.trained:
            where = page if name in self.shape.page_arrays else slot
            old = state["weights"][name], state["first"][name], state["second"][name]
            gradient = ops.cast(self.spread(gradients.weights[name], fold), "float32")
            parts = _adam(old, gradient, where)
            new["weights"][name], new["first"][name], new["second"][name] = parts
        for name, now in gradients.statistics.items():
            norm = ops.take(settings["batch_norm"], owner, axis=0)
            moves = ops.logical_and(page["trains"], norm)[..., None]
            before = state["weights"][name]
            moved = before + (self.spread(now, fold) - before) * page["share"][..., None]
            new["weights"][name] = ops.where(moves, moved, before)
        return new, ops.where(trains, losses + self.spread(gradients.loss, fold), losses)

    def keep(self, weights: Arrays, best: Arrays, improved: Tensor, owner: Tensor) -> Arrays:
        """Returns the best weights, those of improved heads replaced by the current ones.

        Args:
            weights: The state's.
            best: The state's.
            improved: (F, H) bool.
            owner: (P,) int32.
        """
        pages = ops.logical_and(ops.take(improved, ops.maximum(owner, 0), axis=1), (owner >= 0)[None])
        masks = {name: pages if name in self.shape.page_arrays else improved for name in weights}
        return {name: ops.where(as_deep(masks[name], best[name]), weights[name], best[name]) for name in weights}

    # --- scoring ----------------------------------------------------------------------------------------------

    def probabilities(
        self, weights: Arrays, steps: Tensor, settings: Settings, features: Tensor, partitions: Tensor | None
    ) -> Tensor:
        """Class probabilities (G·H, B, K) float32 of the heads in the chosen partitions, without dropout."""
        present = self._fused["present"](settings, steps, partitions)
        mine = {name: self.select(array, partitions) for name, array in weights.items()}
        hidden = self._first_layer(mine["kernel"], features)
        norm = Norm(*(ops.reshape(mine[name], (-1,)) for name in ("beta", *STATISTICS))) if "beta" in mine else None
        active = self._fused["normalise"](hidden, norm, present.channels)
        sums = self._product(active, ops.cast(mine["dense"], self.dtype))
        return self._fused["decide"](sums, {name: mine[name] for name in self.shape.slot_arrays}, present)

    def normalise(self, hidden: Tensor, norm: Norm | None, channels: Arrays) -> Tensor:
        """``activate`` as in use: moving statistics, no dropout."""
        values = self._scaled(ops.cast(hidden, "float32"), norm, channels)
        return self._pool(self._activated(values, channels), channels)

    def decide(self, sums: Tensor, weights: Arrays, present: Present) -> Tensor:
        """``classify`` as in use: probabilities (G·H, B, K) float32."""
        return ops.softmax(self._dense_layers(sums, weights, present, training=False)[-1].outputs)

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

    # --- pieces of the first layer ----------------------------------------------------------------------------

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
        return by_code(ACTIVATIONS, self.shape.activations, codes["activation"], values)

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
            values = by_code(POOLINGS, shape.poolings, channels["pooling"], values)[..., : shape.dense_positions]
        return ops.cast(ops.reshape(values, (-1, PAGE, shape.batch, shape.dense_positions)), self.dtype)

    def _unpool(self, error: Tensor, scaled: Tensor, channels: Arrays) -> Tensor:
        """Gradient of what was pooled, (N, B·S) float32; ``scaled`` is what ``activate`` activated."""
        shape = self.shape
        if shape.poolings == ("flatten",):
            return ops.reshape(error, scaled.shape)
        error = ops.reshape(error, (-1, shape.batch, shape.dense_positions))
        pooled: Tensor = None
        if "max" in shape.poolings:
            pooled = self._drop(self._activated(scaled, channels), channels)
            pooled = ops.reshape(pooled, (-1, shape.batch, shape.positions))
        error = by_code(UNPOOLINGS, shape.poolings, channels["pooling"], error, pooled, shape.positions)
        return ops.reshape(error, scaled.shape)


_NOT_PER_TRIAL = ("owner", "page_in_head", "learning_rate", "seed", "class_weight")


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


def _adam(old: tuple[Tensor, Tensor, Tensor], gradient: Tensor, where: Arrays) -> tuple[Tensor, Tensor, Tensor]:
    """One step of ``keras.optimizers.Adam``: weights, first and second moments (F, n, ...) with numbers (F, n)."""
    weights, first, second = old
    trains, rate, decay, alpha = (as_deep(where[name], weights) for name in ("trains", "rate", "decay", "alpha"))
    decayed = weights - weights * decay * rate
    new_first = first + (gradient - first) * (1 - ADAM_BETAS[0])
    new_second = second + (ops.square(gradient) - second) * (1 - ADAM_BETAS[1])
    moved = decayed - new_first * alpha / (ops.sqrt(new_second) + ADAM_EPSILON)
    return (
        ops.where(trains, moved, weights),
        ops.where(trains, new_first, first),
        ops.where(trains, new_second, second),
    )


def _per_channel(of_pages: Tensor) -> Tensor:
    return ops.repeat(of_pages, PAGE, axis=0)


def _in_pages(of_channels: Tensor) -> Tensor:
    return ops.reshape(of_channels, (-1, PAGE))


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
