"""Pages of 16 channels: what a bank has room for, who owns which page, and how a head's arrays lie in its pages.

All on the host, in NumPy; docs/bank.md draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.bank.shape import STATISTICS, BankShape, pages_of
from heads.model.functions import pooled_positions
from heads.model.spec import PAGE, HeadSpec
from heads.model.weights import Weights

FREE = -1
"""Owner of a page that no head owns."""

HeadArrays = dict[str, npt.NDArray[Any]]
"""The arrays of one head by name, in its own shapes; those that it does not have are left out."""

_ORDER = ("kernel", "beta", "mean", "variance", "dense", "dense_bias", "hidden", "hidden_bias", "out", "out_bias")
"""The names in the order of ``model.get_weights()``."""
Place = tuple[int, tuple[int, ...]]
"""A slot and its pages."""


class PageTable:
    """Which slot owns which page. The folds' partitions are alike, so one table serves all of them.

    Attributes:
        owner: (pages,) int32: slot, or ``FREE``.
        page_in_head: (pages,) int32: which page of its head; ascends with the page number within a head, so that sums
            over a head's pages run in one order wherever they lie.
    """

    def __init__(self, pages: int, slots: int) -> None:
        self.owner = np.full(pages, FREE, np.int32)
        self.page_in_head = np.zeros(pages, np.int32)
        self._slots = slots

    @property
    def free(self) -> int:
        """Pages that nobody owns."""
        return int((self.owner == FREE).sum())

    def has_room(self, pages: int) -> bool:
        """Whether a head of so many pages can be placed."""
        return self.free >= pages and len(self._taken()) < self._slots

    def place(self, pages: int, *, wanted: Place | None = None) -> int:
        """Gives the lowest free slot the lowest free pages, which need not be neighbours; returns the slot.

        Args:
            pages: How many pages the head needs.
            wanted: The slot and the pages to give instead, where they are free.

        Raises:
            ValueError: There is no room.
        """
        if not self.has_room(pages):
            raise ValueError(f"pages: expected at most {self.free} free ones, found a head of {pages}")
        taken = self._taken()
        slot = next(slot for slot in range(self._slots) if slot not in taken)
        where = np.flatnonzero(self.owner == FREE)
        if wanted and wanted[0] not in taken and wanted[0] < self._slots and set(wanted[1]) <= set(where.tolist()):
            slot, where = wanted[0], np.sort(np.array(wanted[1], np.int64))
        where = where[:pages]
        self.owner[where], self.page_in_head[where] = slot, np.arange(pages)
        return slot

    def release(self, slot: int) -> npt.NDArray[np.int64]:
        """Frees a slot's pages and returns them."""
        where = self.of(slot)
        self.owner[where], self.page_in_head[where] = FREE, 0
        return where

    def of(self, slot: int) -> npt.NDArray[np.int64]:
        """Returns the pages of a slot in the order of the head's channels.

        Raises:
            KeyError: There is no head.
        """
        where = np.flatnonzero(self.owner == slot)
        if slot < 0 or not len(where):
            raise KeyError(f"slot {slot} holds no head")
        return where

    def _taken(self) -> set[int]:
        return set(self.owner[self.owner != FREE].tolist())


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


def pack(shape: BankShape, spec: HeadSpec, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[HeadArrays, HeadArrays]:
    """Lays a head's arrays out in pages, padded with zeros.

    Args:
        shape: The bank's.
        spec: The head.
        arrays: Its arrays by name; those left out become zeros.

    Returns:
        By name (its pages, ...) and (...) float32: what lies in pages, and what lies in its slot. All names of the
        bank are there.
    """
    pages = pages_of(spec)
    in_pages = {name: np.zeros((pages, *size), np.float32) for name, size in shape.page_arrays.items()}
    in_slot = {name: np.zeros(size, np.float32) for name, size in shape.slot_arrays.items()}
    for name, array in arrays.items():
        if name == "kernel":
            in_pages[name][:] = array.reshape(-1, spec.conv_width).T.reshape(pages, PAGE, -1)
        elif name == "dense":
            paged = array.reshape(-1, pages, PAGE, array.shape[-1]).transpose(1, 2, 0, 3)
            in_pages[name][:, :, : paged.shape[2], : paged.shape[3]] = paged
        elif name in in_pages:
            in_pages[name][:] = array.reshape(pages, PAGE)
        else:
            in_slot[name][tuple(slice(size) for size in array.shape)] = array
    return in_pages, in_slot


def unpack(shape: BankShape, spec: HeadSpec, in_pages: HeadArrays, in_slot: HeadArrays) -> HeadArrays:
    """Undoes ``pack``; of what is not given nothing is returned."""
    units = [*[spec.dense_units] * spec.dense_layers, shape.classes]
    inside = {
        "dense_bias": (units[0],),
        "hidden": (spec.dense_units, spec.dense_units),
        "hidden_bias": (spec.dense_units,),
        "out": (spec.dense_units, shape.classes),
        "out_bias": (shape.classes,),
    }
    arrays: HeadArrays = {}
    for name in _names(spec):
        if name == "kernel" and name in in_pages:
            arrays[name] = in_pages[name].reshape(spec.conv_width, -1).T[None, None]
        elif name == "dense" and name in in_pages:
            positions = pooled_positions(spec.pooling, shape.positions)
            paged = in_pages[name][:, :, :positions, : units[0]]
            arrays[name] = paged.transpose(2, 0, 1, 3).reshape(-1, units[0])
        elif name in in_pages:
            arrays[name] = in_pages[name].reshape(-1)
        elif name in in_slot:
            arrays[name] = in_slot[name][tuple(slice(size) for size in inside[name])]
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def hyperparameters(shape: BankShape, specs: Sequence[HeadSpec | None]) -> dict[str, npt.NDArray[Any]]:
    """Returns the numbers of each slot's head that the program needs, each (slots,); of a free slot, harmless ones.

    int32: ``activation`` and ``pooling`` (places in the shape's tuples), ``dense_layers``; bool: ``batch_norm``,
    ``taken``; float32: ``dropout``, ``dense_dropout``, ``label_smoothing``, ``weight_decay``.
    """
    blank = HeadSpec(dropout=0)
    rows = [blank if spec is None else spec for spec in specs]
    codes = {
        "activation": [shape.activations.index(s.activation) if s.activation in shape.activations else 0 for s in rows],
        "pooling": [shape.poolings.index(s.pooling) if s.pooling in shape.poolings else 0 for s in rows],
        "dense_layers": [s.dense_layers for s in rows],
    }
    numbers = ("dropout", "dense_dropout", "label_smoothing", "weight_decay")
    return {
        **{name: np.array(values, np.int32) for name, values in codes.items()},
        **{name: np.array([getattr(s, name) for s in rows], np.float32) for name in numbers},
        "batch_norm": np.array([s.batch_norm for s in rows], bool),
        "taken": np.array([spec is not None for spec in specs], bool),
    }
