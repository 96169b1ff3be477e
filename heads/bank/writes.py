"""Heads to be written to the device, gathered into one update."""

from __future__ import annotations

import numpy as np

from heads.bank.packing import HeadArrays, Laid, pack
from heads.bank.program import Program, Values
from heads.bank.shape import BankShape, Sort, StatePart, Where
from heads.model.spec import HeadSpec


class HeadWrites:
    """Heads to be written to the device, gathered into one update."""

    def __init__(self, shape: BankShape) -> None:
        self._shape = shape
        self._where: dict[Sort, list[tuple[int, int]]] = {sort: [] for sort in shape.arrays}
        self._steps: list[int] = []
        self._laid: list[dict[StatePart, Laid]] = []

    def add(self, fold: int, where: Where, spec: HeadSpec, parts: dict[StatePart, HeadArrays], *, steps: int) -> None:
        """Puts a fold's head at its places; parts that are left out become zeros."""
        self._note(fold, where, steps)
        self._laid.append({part: pack(self._shape, spec, parts.get(part, {})) for part in self._shape.state_parts})

    def clear(self, fold: int, where: Where) -> None:
        """Zeroes what a fold's head leaves behind."""
        nothing: Laid = {
            sort: {name: np.zeros((len(where[sort]), *size), np.float32) for name, size in inside.items()}
            for sort, inside in self._shape.arrays.items()
        }
        self._note(fold, where, 0)
        self._laid.append(dict.fromkeys(self._shape.state_parts, nothing))

    def _note(self, fold: int, where: Where, steps: int) -> None:
        for sort, places in where.items():
            self._where[sort] += [(fold, int(place)) for place in places]
        self._steps.append(steps)

    def run(self, program: Program) -> None:
        """Writes all of it."""
        if not self._steps:
            return
        for sort, inside in self._shape.arrays.items():
            values: Values = {}
            for part, names in self._shape.state_parts.items():
                mine = [name for name in inside if name in names]
                values[part] = {name: np.concatenate([head[part][sort][name] for head in self._laid]) for name in mine}
            if sort == "slots":
                values["counters"] = {"steps": np.array(self._steps, np.int32)}
            if self._where[sort]:
                program.write(sort, np.array(self._where[sort], np.int32), values)
