"""The one reader of a feature store (docs/store.md).

Every dataset is contiguous, so rows are read at their place behind the dataset's offset.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from weakref import finalize

import numpy as np
import numpy.typing as npt

from features.hdf5.door import opened, reading
from features.hdf5.values import Attributes
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import from_here
from features.runtime.portable import open_to_read, read_into
from features.store.arrays import Arrays, arrays_to_store
from features.store.given import HeldArray
from features.store.schema import EXPECTED, Rows, RowState, dataset_offset, read_contents, read_header, read_states
from features.store.source import CHUNK_BYTES, Features, FeatureSource, rows_within


class FeatureStore(FeatureSource):
    """A store opened for reading. Arrays are read-only; features stay on disk until they are touched.

    Attributes:
        path: The file, as it was named.
        header: What the file says of itself; names of classes and patients are composed (NFC).
        labels: (rows,) int32.
        done: (rows,) uint8, see ``RowState``.
        contents: (rows, 16) uint8, hash of each source file, zeros where unknown; None in a store that keeps none.
        complete: Whether every row is done or skipped.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a store.

        Raises:
            InputError: There is no such file, or it is not a store of this schema.
            BottleneckError: The process has too many files open.
        """
        if not isinstance(path, str | os.PathLike):
            raise InputError("path", expected=f"the path of {EXPECTED}", found=type(path).__name__)
        self.path = Path(path)
        before = self.path.stat() if os.path.exists(path) else None  # noqa: PTH110  nor is what no file can be called
        with opened(self.path, EXPECTED) as file:
            self.header = read_header(self.path, file).spelled()
            self._features_at = dataset_offset(self.path, file, "features")
            self.done: npt.NDArray[np.uint8] = read_states(self.path, file, len(self.header))
            self.contents = read_contents(self.path, file, len(self.header))
            attributes = Attributes(self.path, file)
            self.complete = attributes.flag("complete")
            self.fingerprint = attributes.text("fingerprint")
        # an update may put another store in this one's place: all reading is of the file whose header was read
        with reading(self.path, EXPECTED):
            self._descriptor = open_to_read(self.path)
        finalize(self, os.close, self._descriptor)
        if before is None or not os.path.samestat(before, os.fstat(self._descriptor)):
            hint = "run it again"
            raise InputError(self.path, expected="a store that stays", found="another one in its place", hint=hint)
        self._opened = _written(before)
        self._absolute = self.path.absolute()  # a notebook may go elsewhere
        self.labels = np.asarray(self.header.labels, np.int32)
        self.patients = np.asarray(self.header.patients)
        for array in (self.done, self.labels, self.patients, self.contents):
            if array is not None:
                array.setflags(write=False)

    @property
    def place(self) -> Path:
        """The path by which the file is opened again, also once the process works in another folder."""
        return from_here(self.path, self._absolute)

    def __fspath__(self) -> str:
        """Where the file is, so that a store may be given wherever a path is asked for."""
        return str(self.place)

    @cached_property
    def features(self) -> npt.NDArray[Any]:
        """(rows, views, height, width, channels), memory-mapped when it is first asked for.

        ``take`` and ``chunks`` read any source, and without it: under ``ulimit -v`` what is mapped counts as memory.
        """
        with reading(self.path, EXPECTED), open(self._descriptor, "rb", closefd=False) as held:
            return np.memmap(held, mode="r", dtype=self.header.dtype, shape=self.header.shape, offset=self._features_at)

    @cached_property
    def content(self) -> str:
        """Hash over the fingerprint and the hashes of all source files; '' where these are not known, or not yet."""
        if self.contents is None or not self.complete:
            return ""
        return hashlib.sha256(self.fingerprint.encode() + self.contents.tobytes()).hexdigest()

    @classmethod
    def from_arrays(
        cls,
        path: str | os.PathLike[str],
        X: Any,  # noqa: N803  as scikit-learn has it
        y: Any,
        *,
        classes: Sequence[str] | None = None,
        paths: Sequence[str] | None = None,
        patients: Sequence[str] | None = None,
        parts: Sequence[str] | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> Self:
        """Makes a store of features from elsewhere (timm, CLIP, DINOv2, ...), as ``features.convert`` does.

        Vectors are maps of 1 x 1. An unfinished store of the same arrays is gone on with, a finished one is opened.

        Args:
            path: File to make.
            X: (rows, channels) or (rows, height, width, channels) of float16, float32 or float64: an array, or what can
                be sliced by rows (a memory map, a dataset of h5py), which is read in pieces, twice.
            y: (rows,) class names, or class indices from 0.
            classes: Class names in label order; else those in ``y``, sorted, or ``class-0``, ``class-1``, ...
            paths: (rows,) a name of each row; else ``row-0``, ``row-1``, ...
            patients: (rows,) patient of each row, '' where unknown: rows of one patient stay in one part of a split.
            parts: (rows,) ``train``, ``validation`` or ``test``, or what they are often called, '' for none: a search
                uses them as they are.
            dtype: float16 or float32, by name or as NumPy's; by default what ``X`` has, or float32 of float64.

        Raises:
            InputError: An array does not fit, or there is another file; nothing was written.
            BottleneckError: The disk is full, or another process writes the store.
        """
        given = {"classes": classes, "paths": paths, "patients": patients, "parts": parts}
        held = {name: HeldArray(name, values) for name, values in given.items() if values is not None}
        arrays = Arrays.of(HeldArray("X", X), HeldArray("y", y), held)
        arrays_to_store(arrays, path, dtype=dtype)
        return cls(path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles by the path, and refuses another store that is there by then.

        The open file is this object's alone: it is closed with it, and its number means nothing to another process.
        """
        return _reopened, (type(self), self._absolute, self.identity)

    def _taken(self, rows: Rows, views: npt.NDArray[np.int64] | int | None) -> Features:
        """See ``FeatureSource``. They are read in file order, so that the disk's own read-ahead helps."""
        if np.all(rows[1:] >= rows[:-1]):
            return self._read(rows, views)
        order = np.argsort(rows)
        taken = self._read(rows[order], views[order] if isinstance(views, np.ndarray) else views)
        placed = np.empty_like(taken)
        placed[order] = taken
        return placed

    def _read(self, rows: Rows, views: npt.NDArray[np.int64] | int | None) -> Features:
        """Reads sorted rows, those that follow each other in the file at once."""
        header = self.header
        shape = header.shape[1:] if views is None else header.feature_shape
        taken: Features = np.empty((len(rows), *shape), header.dtype)
        size = math.prod(shape) * taken.itemsize
        places = rows.astype(np.int64) * header.row_bytes + (0 if views is None else views * size)
        first = np.flatnonzero(np.diff(places, prepend=places[:1]) != size)
        for begin, end in pairwise([*first.tolist(), len(rows)]):
            self._fill(taken[begin:end], int(places[begin]))
        return taken

    def _fill(self, features: Features, place: int) -> None:
        """Reads from a place on, counted from where features begin; they are in one piece in memory, too."""
        try:
            read_into(self._descriptor, features.reshape(-1).view(np.uint8).data, self._features_at + place)
        except EOFError as error:
            raise BottleneckError(f"{self.path}: the file was cut while it was read") from error

    def chunks(self, limit: int = CHUNK_BYTES) -> Iterator[tuple[int, Features]]:
        """Yields (first row, features with all views) of successive rows; see ``FeatureSource``."""
        step = rows_within(limit, self.header)
        for start in range(0, len(self), step):
            features = np.empty((min(step, len(self) - start), *self.header.shape[1:]), self.header.dtype)
            self._fill(features, start * self.header.row_bytes)
            yield start, features

    def require_unchanged(self) -> None:
        """Makes sure that nothing was written into the file since it was opened; see ``FeatureSource``."""
        if _written(os.fstat(self._descriptor)) != self._opened:
            found, hint = "one that was written to since it was opened", "run it again"
            raise InputError(self.path, expected="a store that stays", found=found, hint=hint)

    def require_complete(self) -> None:
        """Refuses a store whose extraction has not ended, and one without a usable row.

        Raises:
            InputError: Saying how many rows are missing.
        """
        pending = int(np.count_nonzero(self.done == RowState.PENDING))
        if pending or not self.complete:
            settled = f"{len(self) - pending} of {len(self)} rows"
            hint = f"run the same {self.header.made_by} again to finish it"
            raise InputError(self.path, field="complete", expected="a finished store", found=settled, hint=hint)
        if not len(self.usable):
            raise InputError(self.path, field="done", expected="at least one usable row", found="none")


def _written(status: os.stat_result) -> tuple[int, int]:
    """What becomes another with whatever is written into a file, and stays where it is renamed or replaced."""
    return status.st_size, status.st_mtime_ns


def _reopened(kind: type[FeatureStore], path: Path, recorded: Mapping[str, str]) -> FeatureStore:
    store = kind(path)
    store.check_recorded(recorded, "was copied or pickled")
    return store
