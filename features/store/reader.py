"""The one reader of a feature store (docs/store.md).

Every dataset is contiguous, so rows are read through ``numpy.memmap`` at the dataset's offset.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.store.schema import RowState, dataset_offset, open_hdf5, read_header


class FeatureStore:
    """A store opened for reading. Arrays are read-only; features stay on disk until they are touched.

    Attributes:
        path: The file.
        header: What the file says of itself.
        features: (rows, views, height, width, channels), memory-mapped.
        labels: (rows,) int32.
        done: (rows,) uint8, see ``RowState``.
        complete: Whether every row is done or skipped.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a store.

        Raises:
            InputError: There is no such file, or it is not a store of this schema.
        """
        self.path = Path(path)
        with open_hdf5(self.path) as file:
            self.header = read_header(self.path, file)
            offset = dataset_offset(self.path, file, "features", self.header.shape, self.header.dtype)
            dataset_offset(self.path, file, "done", (len(self.header),), "uint8")
            self.done: npt.NDArray[np.uint8] = file["done"][:]
            self.complete = bool(file.attrs["complete"])
            self.fingerprint: str = str(file.attrs["fingerprint"])
        self.features: npt.NDArray[Any] = np.memmap(
            self.path, mode="r", dtype=self.header.dtype, shape=self.header.shape, offset=offset
        )
        self.labels = np.asarray(self.header.labels, np.int32)
        self.patients = np.asarray(self.header.patients)
        for array in (self.done, self.labels, self.patients):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.header)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.header.classes

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """Indices of the rows that have features."""
        return np.flatnonzero(self.done == RowState.DONE)

    def require_complete(self) -> None:
        """Refuses a store whose extraction has not ended, and one without a usable row.

        Raises:
            InputError: Saying how many rows are missing.
        """
        pending = int(np.count_nonzero(self.done == RowState.PENDING))
        if pending or not self.complete:
            settled = f"{len(self) - pending} of {len(self)} rows"
            hint = "run the same features.extract again to finish it"
            raise InputError(self.path, field="complete", expected="a finished store", found=settled, hint=hint)
        if not len(self.usable):
            raise InputError(self.path, field="done", expected="at least one usable row", found="none")
