"""The settings of a partition's heads, lined up by what needs them: slot by slot, page by page, tile by tile."""

from __future__ import annotations

import numpy as np
from keras import ops

from heads.bank.dropout import keys
from heads.bank.shape import BankShape
from heads.bank.state import Arrays, Lane, PartitionSettings, Settings, Used
from heads.model.functions import POOLINGS, Tensor
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
    "learning_rate",
    "seed",
)
_USED = ("used_pooled", "used_tiles", "used_slots")
_OF_PAGES = ("activation", "pooling", "batch_norm", "dropout", "seed", "steps")


def partition_settings(shape: BankShape, settings: Settings, steps: Tensor) -> PartitionSettings:
    """Lines up the settings of one partition for the passes; letters as in ``heads.bank.state``.

    Args:
        shape: The bank's.
        settings: Of one partition.
        steps: (H,) int32.
    """
    slots = {**{name: settings[name] for name in _OF_SLOTS}, "steps": steps}
    owner = ops.maximum(settings["owner"], 0)
    of_page = {name: ops.take(slots[name], owner, axis=0) for name in _OF_PAGES}
    place = settings["page_in_head"][:, None] * PAGE + np.arange(PAGE, dtype=np.int32)
    channels = {name: _per_channel(of_page[name]) for name in ("dropout", "batch_norm")}
    channels["key"] = keys(of_page["seed"][:, None], of_page["steps"][:, None], place, layer=0)
    keeps = np.array([POOLINGS[name].keeps_positions for name in shape.poolings])
    pages = {
        "activation": of_page["activation"],
        "pooling": of_page["pooling"],
        "tile_count": settings["tile_count"],
        "tiles": settings["tiles_of_page"],
    }
    return PartitionSettings(
        slots=slots,
        pages={
            "owner": owner,
            "owned": settings["owner"] >= 0,
            "pooled": ops.logical_not(ops.take(keeps, of_page["pooling"], axis=0)),
        },
        lanes=tuple(_lane(shape, lane, pages, channels, settings) for lane in range(shape.lanes)),
        tiles=_tiles(shape, settings, owner),
        **{name: Used(*(settings[part] for part in _parts(name))) for name in _USED},
        class_weight=settings["class_weight"],
    )


def _lane(shape: BankShape, lane: int, pages: Arrays, channels: Arrays, settings: Settings) -> Lane:
    start = shape.lane_starts[lane]
    part = slice(start, start + shape.lane_pages)
    return Lane(
        pages={name: array[part] for name, array in pages.items()},
        channels={name: array[part] for name, array in channels.items()},
        used=Used(*(settings[part][lane] for part in _parts("used_pages"))),
        tiles=settings["tiles_in_lane"][lane],
    )


def _tiles(shape: BankShape, settings: Settings, owner: Tensor) -> Arrays:
    if not shape.flattens:
        return {}
    page = ops.maximum(settings["page_of_tile"], 0)
    row = ops.take(owner, page, axis=0) * shape.tiles_in_page + settings["part_of_tile"]
    return {"page": page, "row": row, "owned": settings["page_of_tile"] >= 0}


def _parts(name: str) -> tuple[str, str, str]:
    """The settings that are a ``Used``."""
    return name, f"{name}_ranks", f"{name}_count"


def _per_channel(of_pages: Tensor) -> Tensor:
    return ops.repeat(of_pages[:, None], PAGE, axis=1)
