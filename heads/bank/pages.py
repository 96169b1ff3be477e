"""Pages of 16 channels and tiles of their dense layers: who owns which, and how a head's arrays lie in them.

All on the host, in NumPy; docs/bank.md draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heads.bank.shape import STATISTICS, BankShape, Sort, first_units, pages_of
from heads.model.functions import pooled_values
from heads.model.spec import PAGE, HeadSpec
from heads.model.weights import Weights

FREE = -1
"""Owner of a page that no head owns, and page of a tile that no page owns."""

HeadArrays = dict[str, npt.NDArray[Any]]
"""The arrays of one head by name, in its own shapes; those that it does not have are left out."""
Laid = dict[Sort, HeadArrays]
"""The arrays of a bank by sort and name, one place behind the other: (pages, ...), (tiles, ...) and (1, ...)."""

_ORDER = ("kernel", "beta", "mean", "variance", "dense", "dense_bias", "hidden", "hidden_bias", "out", "out_bias")
"""The names in the order of ``model.get_weights()``."""
Place = tuple[int, tuple[int, ...]]
"""A slot and its pages."""


class PageTable:
    """Which slot owns which page, and which page which tile. The folds' partitions are alike: one serves all of them.

    Args:
        shape: Of the bank.

    Attributes:
        owner: (pages,) int32: slot, or ``FREE``.
        page_in_head: (pages,) int32: which page of its head; ascends with the page number within a head, so that sums
            over a head's pages run in one order wherever they lie.
        page_of_tile: (tiles,) int32: page, or ``FREE``.
        part_of_tile: (tiles,) int32: which of the tiles of its page.
    """

    def __init__(self, shape: BankShape) -> None:
        self.owner = np.full(shape.pages, FREE, np.int32)
        self.page_in_head = np.zeros(shape.pages, np.int32)
        self.page_of_tile = np.full(shape.tiles, FREE, np.int32)
        self.part_of_tile = np.zeros(shape.tiles, np.int32)
        self._shape = shape

    @property
    def free(self) -> int:
        """Pages that nobody owns."""
        return int((self.owner == FREE).sum())

    @property
    def free_tiles(self) -> int:
        """Tiles that nobody owns."""
        return int((self.page_of_tile == FREE).sum())

    @property
    def free_slots(self) -> int:
        """Heads for which there is a slot."""
        return self._shape.slots - len(self._taken())

    def has_room(self, spec: HeadSpec) -> bool:
        """Whether a head can be placed."""
        fits = self.free >= pages_of(spec) and self.free_tiles >= self._shape.tiles_of(spec)
        return fits and self.free_slots > 0

    def place(self, spec: HeadSpec, *, wanted: Place | None = None) -> int:
        """Gives the lowest free slot the lowest free pages and tiles, which need not be neighbours; returns the slot.

        Of several lanes, each page is the lowest free one of the lane that has fewest in use.

        Args:
            spec: The head.
            wanted: The slot and the pages to give instead, where they are free.

        Raises:
            ValueError: There is no room.
        """
        pages, tiles = pages_of(spec), self._shape.tiles_of(spec)
        if not self.has_room(spec):
            room = f"at most {self.free} free ones, {self.free_tiles} tiles and {self.free_slots} slots"
            raise ValueError(f"pages: expected {room}, found a head of {pages} and {tiles} tiles")
        taken = self._taken()
        slot = next(slot for slot in range(self._shape.slots) if slot not in taken)
        where = np.flatnonzero(self.owner == FREE)
        inside = wanted is not None and wanted[0] not in taken and 0 <= wanted[0] < self._shape.slots
        if wanted and inside and set(wanted[1]) <= set(where.tolist()) and len(set(wanted[1])) == pages:
            slot, where = wanted[0], np.sort(np.array(wanted[1], np.int64))
        else:
            where = self._evenly(where, pages)
        self.owner[where], self.page_in_head[where] = slot, np.arange(pages)
        own = np.flatnonzero(self.page_of_tile == FREE)[:tiles]
        self.page_of_tile[own] = np.repeat(where, tiles // pages)
        self.part_of_tile[own] = np.tile(np.arange(tiles // pages), pages)
        return slot

    def release(self, slot: int) -> dict[Sort, npt.NDArray[np.int64]]:
        """Frees a slot's pages and tiles and returns where it was."""
        where = self.places_of(slot)
        self.owner[where["pages"]], self.page_in_head[where["pages"]] = FREE, 0
        self.page_of_tile[where["tiles"]], self.part_of_tile[where["tiles"]] = FREE, 0
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

    def places_of(self, slot: int) -> dict[Sort, npt.NDArray[np.int64]]:
        """Returns where a head lies: its pages, its tiles (page by page, part by part) and its slot.

        Raises:
            KeyError: There is no head.
        """
        pages = self.of(slot)
        tiles = np.flatnonzero(np.isin(self.page_of_tile, pages))
        tiles = tiles[np.lexsort((self.part_of_tile[tiles], self.page_of_tile[tiles]))]
        return {"pages": pages, "tiles": tiles, "slots": np.array([slot])}

    def layout(self) -> dict[str, npt.NDArray[np.int32]]:
        """Returns what the program needs to know of the table, int32, see ``heads.bank.state.Settings``."""
        tiles_of_page = np.zeros((self._shape.pages, max(1, self._shape.tiles_in_page)), np.int32)
        owned = np.flatnonzero(self.page_of_tile != FREE)
        tiles_of_page[self.page_of_tile[owned], self.part_of_tile[owned]] = owned
        tile_count = np.bincount(self.page_of_tile[owned], minlength=self._shape.pages).astype(np.int32)
        lane_of_tile = np.where(self.page_of_tile == FREE, self._shape.lanes, self._shape.lane_of(self.page_of_tile))
        return {
            "owner": self.owner.copy(),
            "page_in_head": self.page_in_head.copy(),
            "page_of_tile": self.page_of_tile.copy(),
            "part_of_tile": self.part_of_tile.copy(),
            "tiles_of_page": tiles_of_page,
            "tile_count": tile_count,
            **self._by_lane(),
            "tiles_in_lane": np.bincount(lane_of_tile, minlength=self._shape.lanes + 1)[:-1].astype(np.int32),
            **_listed("used_pooled", (self.owner != FREE) & (tile_count == 0)),
            **_listed("used_tiles", self.page_of_tile != FREE, order=lane_of_tile),
            **_listed("used_slots", np.isin(np.arange(self._shape.slots), self.owner)),
        }

    def _taken(self) -> set[int]:
        return set(self.owner[self.owner != FREE].tolist())

    def _evenly(self, free: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        """Takes free pages from the lanes so that all have alike many in use."""
        lanes = self._shape.lane_of(free)
        waiting = [free[lanes == lane].tolist() for lane in range(self._shape.lanes)]
        in_use = np.bincount(
            self._shape.lane_of(np.flatnonzero(self.owner != FREE)), minlength=self._shape.lanes
        ).tolist()
        found = []
        for _ in range(count):
            lane = min((lane for lane, pages in enumerate(waiting) if pages), key=lambda lane: in_use[lane])
            found.append(waiting[lane].pop(0))
            in_use[lane] += 1
        return np.sort(np.array(found, np.int64))

    def _by_lane(self) -> dict[str, npt.NDArray[np.int32]]:
        """Each lane's pages in use, by their places in it."""
        shape, every = self._shape, np.arange(self._shape.pages)
        lists = []
        for lane, start in enumerate(shape.lane_starts):
            used = (self.owner != FREE) & (shape.lane_of(every) == lane)
            lists.append(_listed("used_pages", used[start : start + shape.lane_pages]))
        return {name: np.stack([one[name] for one in lists]) for name in lists[0]}


def _listed(
    name: str, used: npt.NDArray[np.bool_], *, order: npt.NDArray[np.integer] | None = None
) -> dict[str, npt.NDArray[np.int32]]:
    """The places in use, first, in ascending ``order``, then by place; where each is there; how many are in use."""
    keys = ~used if order is None else np.where(used, order, np.iinfo(np.int32).max)
    places = np.argsort(keys, kind="stable").astype(np.int32)
    ranks = np.argsort(places).astype(np.int32)
    return {name: places, f"{name}_ranks": ranks, f"{name}_count": np.array(used.sum(), np.int32)}


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


def settings_of(
    shape: BankShape,
    table: PageTable,
    specs: Sequence[HeadSpec | None],
    *,
    rates: npt.NDArray[Any],
    seeds: npt.NDArray[Any],
    class_weights: npt.NDArray[Any],
) -> dict[str, npt.NDArray[Any]]:
    """Returns the settings of a bank, or of one partition, as the program takes them (``heads.bank.state.Settings``).

    Args:
        shape: The bank's.
        table: Who owns which page.
        specs: The head of each slot, or None.
        rates: Learning rates, float32.
        seeds: Of the dropout masks, int32.
        class_weights: What a row of each class counts in the training loss, float32.
    """
    of_heads = {"learning_rate": rates, "seed": seeds, "class_weight": class_weights}
    return {**table.layout(), **hyperparameters(shape, specs), **of_heads}


def hyperparameters(shape: BankShape, specs: Sequence[HeadSpec | None]) -> dict[str, npt.NDArray[Any]]:
    """Returns the numbers of each slot's head that the program needs, each (slots,); of a free slot, harmless ones.

    int32: ``activation`` and ``pooling`` (places in the shape's tuples), ``dense_layers``; bool: ``batch_norm``,
    ``taken``, ``sgd``; float32: ``dropout``, ``dense_dropout``, ``label_smoothing``, ``weight_decay``, ``momentum``.
    """
    blank = HeadSpec(dropout=0)
    rows = [blank if spec is None else spec for spec in specs]
    codes = {
        "activation": [shape.activations.index(s.activation) if s.activation in shape.activations else 0 for s in rows],
        "pooling": [shape.poolings.index(s.pooling) if s.pooling in shape.poolings else 0 for s in rows],
        "dense_layers": [s.dense_layers for s in rows],
    }
    numbers = ("dropout", "dense_dropout", "label_smoothing", "weight_decay", "momentum")
    return {
        **{name: np.array(values, np.int32) for name, values in codes.items()},
        **{name: np.array([getattr(s, name) for s in rows], np.float32) for name in numbers},
        "batch_norm": np.array([s.batch_norm for s in rows], bool),
        "sgd": np.array([s.is_sgd for s in rows], bool),
        "taken": np.array([spec is not None for spec in specs], bool),
    }
