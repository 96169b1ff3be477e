"""Heads to be written to the device, gathered into one update."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from heads.bank.pages import HeadArrays, pack
from heads.bank.program import Program
from heads.bank.shape import BankShape
from heads.model.spec import HeadSpec


class HeadWrites:
    """Heads to be written to the device, gathered into one update."""

    def __init__(self, shape: BankShape) -> None:
        self._shape = shape
        self._pages: list[tuple[int, int]] = []
        self._slots: list[tuple[int, int]] = []
        self._steps: list[int] = []
        self._in_pages: list[dict[str, HeadArrays]] = []
        self._in_slot: list[dict[str, HeadArrays]] = []

    def add(
        self,
        place: tuple[int, int],
        pages: npt.NDArray[np.int64],
        spec: HeadSpec,
        parts: dict[str, HeadArrays],
        *,
        steps: int,
    ) -> None:
        """Puts a head at (fold, slot); parts that are left out become zeros."""
        packed = {part: pack(self._shape, spec, parts.get(part, {})) for part in self._shape.state_parts}
        self._note(place, pages, steps)
        self._in_pages.append({part: in_pages for part, (in_pages, _) in packed.items()})
        self._in_slot.append({part: in_slot for part, (_, in_slot) in packed.items()})

    def clear(self, place: tuple[int, int], pages: npt.NDArray[np.int64]) -> None:
        """Zeroes what a head at (fold, slot) leaves behind."""
        in_pages = {name: np.zeros((len(pages), *size), np.float32) for name, size in self._shape.page_arrays.items()}
        in_slot = {name: np.zeros(size, np.float32) for name, size in self._shape.slot_arrays.items()}
        self._note(place, pages, 0)
        self._in_pages.append(dict.fromkeys(self._shape.state_parts, in_pages))
        self._in_slot.append(dict.fromkeys(self._shape.state_parts, in_slot))

    def _note(self, place: tuple[int, int], pages: npt.NDArray[np.int64], steps: int) -> None:
        self._pages += [(place[0], int(page)) for page in pages]
        self._slots.append(place)
        self._steps.append(steps)

    def run(self, program: Program) -> None:
        """Writes all of it."""
        if not self._slots:
            return
        in_pages: dict[str, HeadArrays] = {}
        in_slots: dict[str, HeadArrays] = {"counters": {"steps": np.array(self._steps, np.int32)}}
        for part, names in self._shape.state_parts.items():
            paged = [name for name in names if name in self._shape.page_arrays]
            in_pages[part] = {name: np.concatenate([head[part][name] for head in self._in_pages]) for name in paged}
            single = [name for name in names if name in self._shape.slot_arrays]
            in_slots[part] = {name: np.stack([head[part][name] for head in self._in_slot]) for name in single}
        program.write(np.array(self._pages, np.int32), in_pages, np.array(self._slots, np.int32), in_slots)
