"""Adam for every head with its own numbers, the moving statistics, and which weights are kept as the best.

Letters in shapes are those of ``heads.bank.state``.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from heads.bank.functions import Tensor, as_deep
from heads.bank.partitions import Partitions
from heads.bank.state import Arrays, Gradients, Settings, State
from heads.model.spec import ADAM_EPSILON
from heads.model.weights import BATCH_NORM_MOMENTUM

ADAM_BETAS = (0.9, 0.999)


class Update:
    """Moves the heads of a bank on by one step.

    Args:
        partitions: Which of them trained.
    """

    def __init__(self, partitions: Partitions) -> None:
        self.shape, self._unselect = partitions.shape, partitions.unselect

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
        owner = settings["owner"]
        page = _of_owners(slot, owner)
        where = {"pages": page, "tiles": _of_owners(page, settings["page_of_tile"]), "slots": slot}
        new: State = {"weights": dict(state["weights"]), "first": {}, "second": {}, "counters": {"steps": steps}}
        sorts = {name: sort for sort, arrays in self.shape.arrays.items() for name in arrays}
        for name in self.shape.trained:
            old = state["weights"][name], state["first"][name], state["second"][name]
            gradient = ops.cast(self._unselect(gradients.weights[name], fold), "float32")
            parts = _adam(old, gradient, where[sorts[name]])
            new["weights"][name], new["first"][name], new["second"][name] = parts
        for name, now in gradients.statistics.items():
            norm = ops.take(settings["batch_norm"], ops.maximum(owner, 0), axis=0)
            moves = ops.logical_and(page["trains"], norm)[..., None]
            before = state["weights"][name]
            moved = before + (self._unselect(now, fold) - before) * page["share"][..., None]
            new["weights"][name] = ops.where(moves, moved, before)
        return new, ops.where(trains, losses + self._unselect(gradients.loss, fold), losses)

    def keep(self, weights: Arrays, best: Arrays, improved: Tensor, owner: Tensor, page_of_tile: Tensor) -> Arrays:
        """Returns the best weights, those of improved heads replaced by the current ones.

        Args:
            weights: The state's.
            best: The state's.
            improved: (F, H) bool.
            owner: (P,) int32.
            page_of_tile: (T,) int32.
        """
        pages = _of_owners({"trains": improved}, owner)
        masks = {"pages": pages, "tiles": _of_owners(pages, page_of_tile), "slots": {"trains": improved}}
        kept: Arrays = {}
        for sort, arrays in self.shape.arrays.items():
            for name in arrays:
                kept[name] = ops.where(as_deep(masks[sort]["trains"], best[name]), weights[name], best[name])
        return kept


def _of_owners(vectors: Arrays, owner: Tensor) -> Arrays:
    """Numbers of owners (F, n) for each of what they own, (F, m); what nobody owns does not train."""
    taken = {name: ops.take(vector, ops.maximum(owner, 0), axis=1) for name, vector in vectors.items()}
    return {**taken, "trains": ops.logical_and(taken["trains"], (owner >= 0)[None])}


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
