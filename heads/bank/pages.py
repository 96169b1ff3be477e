"""Pages of 16 channels and tiles of their dense layers: who owns which.

All on the host, in NumPy; docs/bank.md draws it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from heads.bank.shape import BankShape, Room, Where, pages_of
from heads.model.spec import HeadSpec

FREE = -1
"""Owner of a page that no head owns, and page of a tile that no page owns."""
Placement = tuple[int, tuple[int, ...]]
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

    @property
    def free_room(self) -> Room:
        """What nobody owns."""
        return Room(self.free, self.free_slots, self.free_tiles)

    def has_room(self, spec: HeadSpec) -> bool:
        """Whether a head can be placed."""
        return self.free_room.holds(self._shape.needed_by([spec]))

    def place(self, spec: HeadSpec, *, wanted: Placement | None = None) -> int:
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
            free = f"at most {self.free} free ones, {self.free_tiles} tiles and {self.free_slots} slots"
            raise ValueError(f"pages: expected {free}, found a head of {pages} and {tiles} tiles")
        if wanted is not None and self._is_free(wanted, pages):
            slot, where = wanted[0], np.sort(np.array(wanted[1], np.int64))
        else:
            taken = self._taken()
            slot = next(slot for slot in range(self._shape.slots) if slot not in taken)
            where = self._evenly(np.flatnonzero(self.owner == FREE), pages)
        self.owner[where], self.page_in_head[where] = slot, np.arange(pages)
        own = np.flatnonzero(self.page_of_tile == FREE)[:tiles]
        self.page_of_tile[own] = np.repeat(where, tiles // pages)
        self.part_of_tile[own] = np.tile(np.arange(tiles // pages), pages)
        return slot

    def release(self, slot: int) -> Where:
        """Frees a slot's pages and tiles and returns where it was."""
        where = self.places_of(slot)
        self.owner[where["pages"]], self.page_in_head[where["pages"]] = FREE, 0
        self.page_of_tile[where["tiles"]], self.part_of_tile[where["tiles"]] = FREE, 0
        return where

    def pages_of_slot(self, slot: int) -> npt.NDArray[np.int64]:
        """Returns the pages of a slot in the order of the head's channels.

        Raises:
            KeyError: There is no head.
        """
        where = np.flatnonzero(self.owner == slot)
        if slot < 0 or not len(where):
            raise KeyError(f"slot {slot} holds no head")
        return where

    def places_of(self, slot: int) -> Where:
        """Returns where a head lies: its pages, its tiles (page by page, part by part) and its slot.

        Raises:
            KeyError: There is no head.
        """
        pages = self.pages_of_slot(slot)
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

    def _is_free(self, wanted: Placement, count: int) -> bool:
        """Whether a slot and ``count`` pages, which come from a file, are there and nobody's."""
        slot, pages = wanted
        free = set(np.flatnonzero(self.owner == FREE).tolist())
        is_free_slot = 0 <= slot < self._shape.slots and slot not in self._taken()
        return is_free_slot and set(pages) <= free and len(set(pages)) == count

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
