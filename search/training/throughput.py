"""Where a pool's time goes: training, bookkeeping, idle pages. Totals outlast the process, in a snapshot or alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from features.runtime.command import say
from features.runtime.errors import InputError
from features.runtime.files import write_json
from features.runtime.json_files import read_model

THROUGHPUT_FILE = "throughput.json"
_Count = Annotated[int, Field(ge=0)]
_Amount = Annotated[float, Field(allow_inf_nan=False)]


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
        compilations: How often a program was compiled: by each process that worked on the study anew.
    """

    epochs: _Count = 0
    head_epochs: _Count = 0
    page_epochs: _Count = 0
    room: _Count = 0
    operations: _Amount = 0.0
    training_seconds: _Amount = 0.0
    bookkeeping_seconds: _Amount = 0.0
    compilations: _Count = 0

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the totals that ``write`` left in a study directory; zeros where there are none.

        No result depends on them, so that a damaged file is said and keeps no study from going on.
        """
        path = folder / THROUGHPUT_FILE
        if not path.is_file():
            return cls()
        try:
            found: Self = read_model(path, cls, "a bank's totals")
        except InputError as error:
            say(f"note: {error}; the time until then is not counted")
            return cls()
        return found

    def write(self, folder: Path) -> None:
        """Writes the totals into a study directory: the bank is through, and no snapshot of it holds them."""
        write_json(folder / THROUGHPUT_FILE, self.to_dict(), shared=True)  # who clears away may be faster

    def training(self) -> AbstractContextManager[None]:
        """Counts the time inside as training."""
        return self._timed(training=1)

    def bookkeeping(self) -> AbstractContextManager[None]:
        """Counts the time inside as bookkeeping."""
        return self._timed(bookkeeping=1)

    def moving(self) -> AbstractContextManager[None]:
        """Within ``bookkeeping``: counts the time inside as the bank's work after all."""
        return self._timed(training=1, bookkeeping=-1)

    @contextmanager
    def _timed(self, *, training: int = 0, bookkeeping: int = 0) -> Iterator[None]:
        """Adds the time inside, so many times, to the totals: also where what is inside raises."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            self.training_seconds += training * seconds
            self.bookkeeping_seconds += bookkeeping * seconds

    def epoch(self, *, heads: int, pages: int, room: int, operations: float, compilations: int) -> None:
        """Counts one epoch of the bank; ``operations`` are those that its heads need."""
        self.epochs += 1
        self.head_epochs += heads
        self.page_epochs += pages
        self.room += room
        self.operations += operations
        self.compilations += compilations

    def __add__(self, other: Throughput) -> Throughput:
        """Returns the totals of both."""
        mine, theirs = self.to_dict(), other.to_dict()
        return Throughput(**{name: value + theirs[name] for name, value in mine.items()})

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
