"""Rows of two stores as if they were of one: for a head that is trained on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from features.store.schema import ROW_FIELDS, Rows
from features.store.source import CHUNK_BYTES, Features, FeatureSource


class JoinedStore(FeatureSource):
    """Two sources of the same kind of features and the same views; the second one's rows come after the first's.

    It reads through to both files; nothing is copied. ``path`` is the first one's.
    """

    def __init__(self, first: FeatureSource, second: FeatureSource) -> None:
        for name in ("feature_shape", "classes", "views", "projection"):
            assert getattr(first.header, name) == getattr(second.header, name), name
        self._parts = (first, second)
        self._dtype = np.result_type(first.header.dtype, second.header.dtype)
        rows = {name: getattr(first.header, name) + getattr(second.header, name) for name in ROW_FIELDS}
        rows["parts"] = ()  # of two stores, each is a part by itself
        timed = first.header.modified and second.header.modified
        rows["modified"] = first.header.modified + second.header.modified if timed else ()
        self.path = first.path
        self.header = replace(first.header, **rows, dtype=self._dtype.name)
        self.labels = np.concatenate([first.labels, second.labels])
        self.patients = np.concatenate([first.patients, second.patients])
        self.done = np.concatenate([first.done, second.done])
        for array in (self.done, self.labels, self.patients):
            array.setflags(write=False)
        self.complete = first.complete and second.complete
        self.fingerprint = self.header.fingerprint

    def _taken(self, rows: Rows, views: npt.NDArray[np.int64] | int | None) -> Features:
        """See ``FeatureSource``."""
        shape = self.header.shape[1:] if views is None else self.header.feature_shape
        taken = np.empty((len(rows), *shape), self._dtype)
        border = len(self._parts[0])
        behind = rows >= border
        for part, mine, start in zip(self._parts, (~behind, behind), (0, border), strict=True):
            if mine.any():
                taken[mine] = part.take(rows[mine] - start, views[mine] if isinstance(views, np.ndarray) else views)
        return taken

    def require_unchanged(self) -> None:
        """See ``FeatureSource``; of both."""
        for part in self._parts:
            part.require_unchanged()

    def chunks(self, limit: int = CHUNK_BYTES) -> Iterator[tuple[int, Features]]:
        """Yields (first row, features with all views) of successive rows; see ``FeatureSource``."""
        before = 0
        for part in self._parts:
            share = limit * part.header.row_bytes // self.header.row_bytes
            for start, features in part.chunks(share):
                yield before + start, features.astype(self._dtype, copy=False)
            before += len(part)
