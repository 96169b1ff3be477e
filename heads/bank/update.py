"""Adam or SGD for every head with its own numbers, the moving statistics, and which weights are kept as the best.

Letters in shapes are those of ``heads.bank.state``.
"""

from __future__ import annotations

from keras import ops

from heads.bank.functions import as_deep
from heads.bank.shape import BankShape, Sort
from heads.bank.state import Arrays, Gradients, Settings, State
from heads.model.functions import Tensor
from heads.model.spec import ADAM_EPSILON
from heads.model.weights import BATCH_NORM_MOMENTUM

ADAM_BETAS = (0.9, 0.999)


class Update:
    """Moves the heads of a partition on by one step.

    In two passes, since one that writes moments and weights together reads the old moments for both: a compiler then
    copies them before it writes in place.

    Args:
        shape: The bank's.
    """

    def __init__(self, shape: BankShape) -> None:
        self.shape = shape
        self._sort_of = {name: sort for sort, arrays in shape.arrays.items() for name in arrays}

    def update(self, state: State, gradients: Gradients, settings: Settings, losses: Tensor) -> tuple[State, Tensor]:
        """Adam, or SGD with momentum, with decoupled weight decay, and the moving statistics.

        Args:
            state: Of one partition, without ``best``.
            gradients: See ``Gradients``.
            settings: Of the partition.
            losses: (H,) float32, the sum of the losses so far.

        Returns:
            The new state, and the losses with this batch's added.
        """
        moments, losses = self.update_moments(state, gradients, settings, losses)
        return {**moments, "weights": self.update_weights(state["weights"], moments, gradients, settings)}, losses

    def update_moments(
        self, state: State, gradients: Gradients, settings: Settings, losses: Tensor
    ) -> tuple[State, Tensor]:
        """The first pass: ``first``, ``second`` and ``counters`` of the new state, and the losses; see ``update``."""
        trains = settings["taken"]
        steps = state["counters"]["steps"] + ops.cast(trains, "int32")
        slot = {"trains": trains}
        if True in self.shape.sgd:
            slot |= {"sgd": settings["sgd"], "momentum": settings["momentum"], "rate": settings["learning_rate"]}
        per_place = self._of_places(slot, settings)
        new: State = {"first": {}, "second": {}, "counters": {"steps": steps}}
        for name in self.shape.trained:
            first, second = state["first"][name], state["second"][name]
            gradient = ops.cast(gradients.weights[name], "float32")
            numbers = {key: as_deep(vector, first) for key, vector in per_place[self._sort_of[name]].items()}
            updated = first + (gradient - first) * (1 - ADAM_BETAS[0])
            if True in self.shape.sgd:  # whose velocity is what is added to the weights
                updated = ops.where(numbers["sgd"], first * numbers["momentum"] - gradient * numbers["rate"], updated)
            new["first"][name] = ops.where(numbers["trains"], updated, first)
            new["second"][name] = ops.where(
                numbers["trains"], second + (ops.square(gradient) - second) * (1 - ADAM_BETAS[1]), second
            )
        return new, ops.where(trains, losses + gradients.loss, losses)

    def update_weights(self, weights: Arrays, moments: State, gradients: Gradients, settings: Settings) -> Arrays:
        """The second pass: the new weights, by what the first one returned."""
        rate = settings["learning_rate"]
        count = ops.cast(ops.maximum(moments["counters"]["steps"], 1), "float32")
        powers = [ops.power(ops.cast(beta, "float32"), count) for beta in ADAM_BETAS]
        slot = {
            "trains": settings["taken"],
            "decay": settings["weight_decay"] * rate,
            "alpha": rate * ops.sqrt(1 - powers[1]) / (1 - powers[0]),
            # Moving averages without the bias of their start, see ``heads.model.weights.unbiased``: the first batch
            # counts fully, a late one as much as Keras lets it.
            "share": (1 - BATCH_NORM_MOMENTUM) / (1 - ops.power(ops.cast(BATCH_NORM_MOMENTUM, "float32"), count)),
        }
        if True in self.shape.sgd:
            slot["sgd"] = settings["sgd"]
        per_place = self._of_places(slot, settings)
        new = dict(weights)
        for name in self.shape.trained:
            numbers = {key: as_deep(vector, weights[name]) for key, vector in per_place[self._sort_of[name]].items()}
            first = moments["first"][name]
            step = first * numbers["alpha"] / (ops.sqrt(moments["second"][name]) + ADAM_EPSILON)
            if True in self.shape.sgd:
                step = ops.where(numbers["sgd"], -first, step)
            moved = weights[name] - weights[name] * numbers["decay"] - step
            new[name] = ops.where(numbers["trains"], moved, weights[name])
        for name, now in gradients.statistics.items():
            norm = ops.take(settings["batch_norm"], ops.maximum(settings["owner"], 0), axis=0)
            moves = ops.logical_and(per_place["pages"]["trains"], norm)[:, None]
            moved = weights[name] + (now - weights[name]) * per_place["pages"]["share"][:, None]
            new[name] = ops.where(moves, moved, weights[name])
        return new

    def keep(self, weights: Arrays, best: Arrays, improved: Tensor, owner: Tensor, page_of_tile: Tensor) -> Arrays:
        """Returns the best weights of a partition, those of improved heads replaced by the current ones.

        Args:
            weights: Of the partition.
            best: Likewise.
            improved: (H,) bool.
            owner: (P,) int32.
            page_of_tile: (T,) int32.
        """
        per_place = self._of_places({"trains": improved}, {"owner": owner, "page_of_tile": page_of_tile})
        return {
            name: ops.where(as_deep(per_place[self._sort_of[name]]["trains"], best[name]), weights[name], best[name])
            for name in best
        }

    def _of_places(self, of_slots: Arrays, layout: Settings) -> dict[Sort, Arrays]:
        """Numbers of heads, (H,) each, for all that they own; what nobody owns does not train."""
        pages = _of_owners(of_slots, layout["owner"])
        return {"slots": of_slots, "pages": pages, "tiles": _of_owners(pages, layout["page_of_tile"])}


def _of_owners(vectors: Arrays, owner: Tensor) -> Arrays:
    taken = {name: ops.take(vector, ops.maximum(owner, 0), axis=0) for name, vector in vectors.items()}
    return {**taken, "trains": ops.logical_and(taken["trains"], owner >= 0)}
