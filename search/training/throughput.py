"""Where a pool's time goes: training, bookkeeping, idle pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from heads.bank.matmul_rate import matmul_rate
from heads.bank.shape import BankShape
from heads.model.spec import PAGE
from search.record.results import BankFigures


@dataclass
class Throughput:
    """Totals of a pool since its study began, carried over a resume.

    Attributes:
        epochs: Epochs of the bank.
        head_epochs: Epochs of heads in it: one for each head that trained.
        page_epochs: Pages in use, summed over the epochs.
        room: Pages there were, summed over the epochs.
        operations: Floating-point operations in the matrix products of the pages in use.
        training_seconds: In training and scoring, and in moving heads in and out of the bank.
        bookkeeping_seconds: In asking, reporting, judging, telling, storage and snapshots while nothing trained.
    """

    epochs: int = 0
    head_epochs: int = 0
    page_epochs: int = 0
    room: int = 0
    operations: float = 0.0
    training_seconds: float = 0.0
    bookkeeping_seconds: float = 0.0

    @contextmanager
    def training(self) -> Iterator[None]:
        """Counts the time inside as training."""
        begun = time.perf_counter()
        yield
        self.training_seconds += time.perf_counter() - begun

    @contextmanager
    def bookkeeping(self) -> Iterator[None]:
        """Counts the time inside as bookkeeping."""
        begun = time.perf_counter()
        yield
        self.bookkeeping_seconds += time.perf_counter() - begun

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Within ``bookkeeping``: counts the time inside as the bank's work after all."""
        begun = time.perf_counter()
        yield
        seconds = time.perf_counter() - begun
        self.training_seconds += seconds
        self.bookkeeping_seconds -= seconds

    def epoch(self, *, heads: int, pages: int, room: int, operations: float) -> None:
        """Counts one epoch of the bank; ``operations`` are those of all of its pages."""
        self.epochs += 1
        self.head_epochs += heads
        self.page_epochs += pages
        self.room += room
        self.operations += operations * pages / room

    @property
    def seconds(self) -> float:
        """Training and bookkeeping together."""
        return self.training_seconds + self.bookkeeping_seconds

    @property
    def operations_per_second(self) -> float:
        """Of the matrix products, while training and scoring."""
        return self.operations / self.training_seconds if self.training_seconds else 0.0

    @property
    def occupancy(self) -> float:
        """Mean share of the pages that were in use."""
        return self.page_epochs / self.room if self.room else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the totals as JSON types."""
        return asdict(self)


def step_rate(shape: BankShape, dtype: str) -> float:
    """Measured rate of the bare products of this bank's first layers, in operations per second."""
    rows = shape.batch * shape.positions
    outputs = shape.pages * PAGE * max(1, shape.folds - 1)
    return matmul_rate(rows=rows, channels=shape.feature_shape[2], outputs=outputs, dtype=dtype)


def describe_bank(shape: BankShape, dtype: str, throughput: Throughput, compilations: int) -> BankFigures:
    """Returns what summary.json says of a bank; measures the machine's rate of products."""
    bare, epochs, seconds = step_rate(shape, dtype), throughput.epochs, throughput.seconds
    return BankFigures(
        pages=shape.pages,
        dtype=dtype,
        compilations=compilations,
        heads_at_once=round(throughput.head_epochs / epochs, 2) if epochs else 0,
        page_occupancy=round(throughput.occupancy, 4),
        trial_epochs_per_second=round(throughput.head_epochs / seconds, 3) if seconds else None,
        gflops=round(throughput.operations_per_second / 1e9, 1),
        peak_gflops=round(bare / 1e9, 1) if bare else None,
        fraction_of_peak=round(throughput.operations_per_second / bare, 4) if bare else None,
        training_seconds=round(throughput.training_seconds, 3),
        bookkeeping_seconds=round(throughput.bookkeeping_seconds, 3),
        bookkeeping_share=round(throughput.bookkeeping_seconds / seconds, 4) if seconds else None,
    )
