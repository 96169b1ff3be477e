"""Which partitions of a bank are computed: those of all folds but the one that sits a batch out."""

from __future__ import annotations

import numpy as np
from keras import ops

from heads.bank.dropout import keys
from heads.bank.functions import Tensor
from heads.bank.shape import BankShape
from heads.bank.state import Arrays, Present, Settings, Used
from heads.model.functions import POOLINGS
from heads.model.spec import PAGE

_OF_SLOTS = (
    "activation",
    "pooling",
    "dense_layers",
    "dropout",
    "dense_dropout",
    "label_smoothing",
    "weight_decay",
    "batch_norm",
    "taken",
)
_OF_PAGES = ("activation", "pooling", "batch_norm", "dropout", "seed", "steps")


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
        """Lines up the settings of the chosen partitions: slot by slot, page by page, tile by tile."""
        shape = self.shape
        groups = shape.folds if partitions is None else partitions.shape[0]
        slots = {name: ops.tile(settings[name], (groups,)) for name in _OF_SLOTS}
        slots |= {name: self.select(settings[name], partitions) for name in ("learning_rate", "seed")}
        slots["steps"] = self.select(steps, partitions)
        owner = self._side_by_side(ops.maximum(settings["owner"], 0), groups, shape.slots)
        of_page = {name: ops.take(slots[name], owner, axis=0) for name in _OF_PAGES}
        place = settings["page_in_head"][:, None] * PAGE + np.arange(PAGE, dtype=np.int32)
        place = ops.tile(place, (groups, 1))
        channels = {name: _per_channel(of_page[name]) for name in ("dropout", "batch_norm")}
        channels["key"] = keys(of_page["seed"][:, None], of_page["steps"][:, None], place, layer=0)
        keeps = np.array([POOLINGS[name].keeps_positions for name in shape.poolings])
        pages = {
            "owner": owner,
            "owned": ops.tile(settings["owner"] >= 0, (groups,)),
            "activation": of_page["activation"],
            "pooling": of_page["pooling"],
            "pooled": ops.logical_not(ops.take(keeps, of_page["pooling"], axis=0)),
            "tile_count": ops.tile(settings["tile_count"], (groups,)),
            "tiles": self._side_by_side(settings["tiles_of_page"], groups, shape.tiles),
        }
        return Present(
            slots=slots,
            pages=pages,
            channels=channels,
            tiles=self._tiles(settings, owner, groups),
            used_pages=self._used("used_pages", settings, groups, shape.pages),
            used_slots=self._used("used_slots", settings, groups, shape.slots),
            class_weight=settings["class_weight"],
        )

    def _tiles(self, settings: Settings, owner: Tensor, groups: int) -> Arrays:
        shape = self.shape
        if not shape.flattens:
            return {}
        page = self._side_by_side(ops.maximum(settings["page_of_tile"], 0), groups, shape.pages)
        part = ops.tile(settings["part_of_tile"], (groups,))
        row = ops.take(owner, page, axis=0) * shape.tiles_in_page + part
        return {"page": page, "row": row, "owned": ops.tile(settings["page_of_tile"] >= 0, (groups,))}

    def _side_by_side(self, places: Tensor, groups: int, of_each: int) -> Tensor:
        """Places (n, ...) of one partition, of which each has ``of_each``, as those of all computed, (G·n, ...)."""
        first = np.arange(groups, dtype=np.int32) * of_each
        moved = places[None] + first.reshape(-1, *[1] * len(places.shape))
        return ops.reshape(moved, (-1, *places.shape[1:]))

    def _used(self, name: str, settings: Settings, groups: int, of_each: int) -> Used:
        number = np.arange(groups * of_each, dtype=np.int32)
        count = settings[f"{name}_count"]
        inside = ops.mod(number, ops.maximum(count, 1))
        group = ops.floor_divide(number, ops.maximum(count, 1))
        places = ops.take(settings[name], inside, axis=0) + ops.minimum(group, groups - 1) * of_each
        return Used(places, count * groups)


def _per_channel(of_pages: Tensor) -> Tensor:
    return ops.repeat(of_pages[:, None], PAGE, axis=1)
