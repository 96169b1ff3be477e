"""What a backend has to offer so that a bank can run on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from heads.bank.packing import HeadArrays, Laid
from heads.bank.settings import HostSettings
from heads.bank.shape import BankShape, Sort, StatePart, Where

CHUNK = 16
"""Pages, tiles or slots in one write or read: one compiled shape, whatever the heads."""
Values = dict[str, HeadArrays]
"""Arrays by part of the state and by name, one place behind the other."""
ProgramPart = StatePart | Literal["counters"]
"""A part of the state; counters are of slots."""
Held = Any
"""Features on the device, (n, positions · channels) in the products' dtype."""
TrainingBatch = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""From the host: features (batch, h, w, c) and labels (batch,)."""
ScoringBatch = tuple[npt.NDArray[Any], np.int32]
"""From the host: features (rows, h, w, c), and the fold whose heads are scored on them."""
_ALIGNMENT = 64
"""Bytes: an array that begins at a multiple of it backends take for their own, as it is."""


class TrainingPlan(NamedTuple):
    """An epoch on features held on the device.

    Attributes:
        places: (steps, batch) int32, of each row and view in ``Held``.
        labels: (steps, batch) int32.
        folds: (steps,) int32: the fold that a batch is drawn from.
    """

    places: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    folds: npt.NDArray[np.int32]


class ScoringPlan(NamedTuple):
    """Rows to score, in equal batches, each of one fold.

    Attributes:
        places: (batches, rows) int32, of each row and view in ``Held``.
        folds: (batches,) int32: whose heads are scored on a batch.
    """

    places: npt.NDArray[np.int32]
    folds: npt.NDArray[np.int32]


class ExactForward(NamedTuple):
    """A compiled ``Bank.probabilities`` whose float32 is exact: that of a CPU.

    Attributes:
        shape: Of its one partition; ``batch`` is the number of rows that it takes.
        run: (weights, steps, settings, features) to (H, B, K).
    """

    shape: BankShape
    run: Callable[..., Any]


class Program(Protocol):
    """A bank's state on a device and the compiled programs over it; arrays in and out are NumPy's.

    ``settings`` are ``heads.bank.state.Settings``. Made of a shape, a dtype and the rows of a batch that is scored.

    Attributes:
        traces: How often a training or scoring program was traced, and so compiled.
        exact: What finished heads can be scored with, where scoring computes in exact float32 anyway; else None.
    """

    traces: int
    exact: ExactForward | None

    def hold(self, features: npt.NDArray[Any]) -> Held:
        """Takes features, which nobody changes any more, to the device.

        Where that is the CPU an ``aligned`` array is not copied: it stays the only one of its size.
        """

    def train_epoch(self, settings: HostSettings, held: Held, plan: TrainingPlan) -> npt.NDArray[np.float32]:
        """Trains on held features; returns the sums of the losses, (folds, slots)."""

    def train_stream(
        self, settings: HostSettings, batches: Iterable[TrainingBatch], folds: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        """The same with batches from the host."""

    def predict_held(self, settings: HostSettings, held: Held, plan: ScoringPlan) -> npt.NDArray[np.float32]:
        """Class probabilities, (batches, slots, rows, classes)."""

    def predict_stream(
        self, settings: HostSettings, batches: Iterable[ScoringBatch]
    ) -> Iterator[npt.NDArray[np.float32]]:
        """The same with batches from the host, one after the other: (slots, rows, classes)."""

    def keep(
        self, improved: npt.NDArray[np.bool_], owner: npt.NDArray[np.int32], page_of_tile: npt.NDArray[np.int32]
    ) -> None:
        """Copies the current weights of some heads, (folds, slots), to the best ones."""

    def write(self, sort: Sort, where: npt.NDArray[np.int32], values: Values) -> None:
        """Writes values at (n, 2) places of a sort: (fold, place) each."""

    def read(self, part: ProgramPart, fold: int, where: Where) -> Laid:
        """Returns one part of the arrays at places of one fold; ``steps`` is among those of slots."""


def filled(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Fills a chunk up by repeating its last entry, so that what fills it up writes what is written anyway."""
    return np.concatenate([array, np.repeat(array[-1:], CHUNK - len(array), axis=0)])


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Makes an array, of whatever lies in its memory, that ``Program.hold`` need not copy on a CPU."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)
