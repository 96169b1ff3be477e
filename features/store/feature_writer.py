"""Features of rows, written into a store by processes beside the one that holds its lock, on other machines too.

Rows lie at known places of a dataset that is allocated already, so whoever sees the file can write some of them. What
a row is, pending or done, says the one ``StoreWriter`` alone, after their features are on the disk.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from features.runtime.files import disk_error
from features.runtime.portable import open_to_write, sync_data
from features.store.contiguous import write_at


@dataclass(frozen=True)
class FeaturesPlace:
    """Where the features of a store lie that is being written.

    Attributes:
        path: The store, absolute.
        inode: Which file that is, on whatever machine.
        size: Its bytes.
        offset: Where its first row begins.
        row_shape: (views, height, width, channels) of a row.
        dtype: Of the features.
    """

    path: Path
    inode: int
    size: int
    offset: int
    row_shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, path: Path, offset: int, row_shape: tuple[int, ...], dtype: str) -> FeaturesPlace:
        """Returns the place in a file that is there."""
        found = path.stat()
        return cls(path.absolute(), found.st_ino, found.st_size, offset, row_shape, dtype)

    def opened(self) -> FeatureWriter | None:
        """Opens the file to write rows of it; None where this machine does not see it, or may not write it."""
        try:
            descriptor = open_to_write(self.path)
        except OSError:
            return None
        found = os.fstat(descriptor)
        if (found.st_ino, found.st_size) == (self.inode, self.size):
            return FeatureWriter(self, descriptor)
        os.close(descriptor)  # of the same name on another disk
        return None


class FeatureWriter:
    """Writes features of rows. Use as a context manager; ``FeaturesPlace.opened`` makes it."""

    def __init__(self, place: FeaturesPlace, descriptor: int) -> None:
        self._place = place
        self._descriptor = descriptor

    def write(self, rows: Sequence[int], features: npt.NDArray[Any]) -> None:
        """Writes rows, and flushes them to the disk.

        Args:
            rows: In ascending order.
            features: (len(rows), views, height, width, channels) in the store's dtype.

        Raises:
            BottleneckError: The disk is full or failed.
        """
        place = self._place
        assert features.shape == (len(rows), *place.row_shape), f"{features.shape=} {place.row_shape=}"
        assert features.dtype == place.dtype, f"{features.dtype=}"
        row_bytes = math.prod(place.row_shape) * np.dtype(place.dtype).itemsize
        try:
            for inside, first in runs_of(rows):
                write_at(self._descriptor, features[inside], place.offset + first * row_bytes)
            sync_data(self._descriptor)
        except OSError as error:
            raise disk_error(place.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def runs_of(rows: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Cuts rows into runs without a gap: which of them, and the first one's number."""
    starts = [index for index in range(len(rows)) if not index or rows[index] != rows[index - 1] + 1]
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield slice(start, stop), rows[start]
