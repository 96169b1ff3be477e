"""How a head's arrays lie in pages, tiles and a slot: there and back, on the host, in NumPy; docs/bank.md draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.bank.shape import STATISTICS, BankShape, Sort, first_units, pages_of
from heads.model.functions import pooled_values
from heads.model.spec import PAGE, HeadSpec
from heads.model.weights import Weights

HeadArrays = dict[str, npt.NDArray[Any]]
"""The arrays of one head by name, in its own shapes; those that it does not have are left out."""
Laid = dict[Sort, HeadArrays]
"""The arrays of a bank by sort and name, one place behind the other: (pages, ...), (tiles, ...) and (1, ...)."""

_ORDER = ("kernel", "beta", "mean", "variance", "dense", "dense_bias", "hidden", "hidden_bias", "out", "out_bias")
"""The names in the order of ``model.get_weights()``."""


def named(spec: HeadSpec, weights: Weights) -> HeadArrays:
    """Names the arrays of ``model.get_weights()``."""
    return dict(zip(_names(spec), weights, strict=True))


def listed(spec: HeadSpec, arrays: Mapping[str, npt.NDArray[Any]]) -> Weights:
    """Returns a head's arrays in the order of ``model.get_weights()``."""
    return [arrays[name] for name in _names(spec)]


def _names(spec: HeadSpec) -> list[str]:
    norm = ("beta", *STATISTICS) if spec.batch_norm else ()
    hidden = ("hidden", "hidden_bias") if spec.dense_layers > 1 else ()
    out = ("out", "out_bias") if spec.dense_layers else ()
    present = {"kernel", "dense", "dense_bias", *norm, *hidden, *out}
    return [name for name in _ORDER if name in present]


def pack(shape: BankShape, spec: HeadSpec, arrays: Mapping[str, npt.NDArray[Any]]) -> Laid:
    """Lays a head's arrays out in pages, tiles and its slot, padded with zeros.

    Args:
        shape: The bank's.
        spec: The head.
        arrays: Its arrays by name; those left out become zeros.

    Returns:
        Float32; all names of the bank are there.
    """
    pages, tiles = pages_of(spec), shape.tiles_of(spec)
    counts: dict[Sort, int] = {"pages": pages, "tiles": tiles, "slots": 1}
    laid: Laid = {
        sort: {name: np.zeros((counts[sort], *size), np.float32) for name, size in inside.items()}
        for sort, inside in shape.arrays.items()
    }
    for name, array in arrays.items():
        if name == "kernel":
            laid["pages"][name][:] = array.reshape(-1, spec.conv_width).T.reshape(pages, PAGE, -1)
        elif name == "dense" and tiles:
            units, parts = array.shape[-1], tiles // pages
            wide = np.zeros((shape.positions, pages, PAGE, parts * shape.tile_units), np.float32)
            wide[..., :units] = array.reshape(shape.positions, pages, PAGE, units)
            cut = wide.reshape(*wide.shape[:3], parts, shape.tile_units)
            laid["tiles"]["tiles"][:] = cut.transpose(1, 3, 2, 0, 4).reshape(tiles, PAGE, shape.positions, -1)
        elif name == "dense":
            units = array.shape[-1]
            by_value = array.reshape(-1, pages, PAGE, units).transpose(1, 2, 0, 3)
            channels = laid["pages"]["pooled"].reshape(pages, PAGE, shape.pooled_values, -1)
            channels[:, :, : by_value.shape[2], :units] = by_value
        elif name in laid["pages"]:
            laid["pages"][name][:] = array.reshape(pages, PAGE)
        else:
            laid["slots"][name][0][tuple(slice(size) for size in array.shape)] = array
    return laid


def unpack(shape: BankShape, spec: HeadSpec, laid: Laid) -> HeadArrays:
    """Undoes ``pack``; of what is not given nothing is returned."""
    pages, tiles, units = pages_of(spec), shape.tiles_of(spec), first_units(spec, shape.classes)
    inside = {
        "dense_bias": (units,),
        "hidden": (units, units),
        "hidden_bias": (units,),
        "out": (units, shape.classes),
        "out_bias": (shape.classes,),
    }
    in_pages, in_tiles, in_slot = laid["pages"], laid["tiles"], laid["slots"]
    arrays: HeadArrays = {}
    for name in _names(spec):
        if name == "kernel" and name in in_pages:
            arrays[name] = in_pages[name].reshape(spec.conv_width, -1).T[None, None]
        elif name == "dense" and tiles and "tiles" in in_tiles:
            cut = in_tiles["tiles"].reshape(pages, tiles // pages, PAGE, shape.positions, -1)
            arrays[name] = cut.transpose(3, 0, 2, 1, 4).reshape(shape.positions * spec.conv_width, -1)[:, :units]
        elif name == "dense" and not tiles and "pooled" in in_pages:
            channels = in_pages["pooled"].reshape(spec.conv_width, shape.pooled_values, -1)
            by_value = channels[:, : pooled_values(spec.pooling, shape.positions), :units].transpose(1, 0, 2)
            arrays[name] = by_value.reshape(-1, units)
        elif name in in_pages:
            arrays[name] = in_pages[name].reshape(-1)
        elif name in in_slot:
            arrays[name] = in_slot[name][0][tuple(slice(size) for size in inside[name])]
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}
