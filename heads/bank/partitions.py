"""Which partitions of a bank are computed: those of all folds but the one that sits a batch out."""

from __future__ import annotations

import numpy as np
from keras import ops

from heads.bank.dropout import keys
from heads.bank.functions import Tensor
from heads.bank.shape import BankShape
from heads.bank.state import Present, Settings
from heads.model.spec import PAGE

_NOT_PER_TRIAL = ("owner", "page_in_head", "learning_rate", "seed", "class_weight")


class Partitions:
    """Chooses partitions of a bank and lays them side by side; letters as in ``heads.bank.state``.

    Args:
        shape: The bank's.
    """

    def __init__(self, shape: BankShape) -> None:
        self.shape = shape

    def others(self, fold: Tensor) -> Tensor | None:
        """Partitions that train on a batch of ``fold`` (int32 scalar): (F - 1,), or None for the only one."""
        folds = self.shape.folds
        return None if folds == 1 else ops.mod(fold + 1 + np.arange(folds - 1, dtype=np.int32), folds)

    def select(self, array: Tensor, partitions: Tensor | None) -> Tensor:
        """(F, n, ...) to the chosen partitions side by side, (G·n, ...); None chooses all."""
        if partitions is not None:
            array = ops.take(array, partitions, axis=0)
        return ops.reshape(array, (-1, *array.shape[2:]))

    def unselect(self, array: Tensor, fold: Tensor) -> Tensor:
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


def _per_channel(of_pages: Tensor) -> Tensor:
    return ops.repeat(of_pages, PAGE, axis=0)
