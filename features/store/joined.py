"""Rows of two stores as if they were of one: for a head that is trained on all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from features.store.reader import FeatureStore


class JoinedStore(FeatureStore):
    """Two stores of the same kind of features and the same views; the second one's rows come after the first's.

    It reads through to both files; nothing is copied. ``path`` is the first one's.
    """

    def __init__(self, first: FeatureStore, second: FeatureStore) -> None:
        for name in ("feature_shape", "classes", "views"):
            assert getattr(first.header, name) == getattr(second.header, name), name
        joined: Any = _Joined(first.features, second.features)
        row_fields = ("paths", "sizes", "labels", "patients")
        rows = {name: getattr(first.header, name) + getattr(second.header, name) for name in row_fields}
        self.path = first.path
        self.header = replace(first.header, **rows, dtype=joined.dtype.name)
        self.features = joined
        self.labels = np.concatenate([first.labels, second.labels])
        self.patients = np.concatenate([first.patients, second.patients])
        self.done = np.concatenate([first.done, second.done])
        self.complete = first.complete and second.complete
        self.fingerprint = self.header.fingerprint


class _Joined:
    """Two arrays (rows, views, height, width, channels), one behind the other."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])
        self.dtype = np.result_type(first.dtype, second.dtype)

    def __getitem__(self, index: Any) -> npt.NDArray[Any]:
        """Takes ``[rows]`` or ``[rows, views]``, rows (n,) int64, views an int or (n,)."""
        rows, views = index if isinstance(index, tuple) else (index, None)
        behind = rows >= len(self._first)
        depth = 1 if views is None else 2
        taken = np.empty((len(rows), *self.shape[depth:]), self.dtype)
        for array, mine, offset in ((self._first, ~behind, 0), (self._second, behind, len(self._first))):
            if mine.any():
                where = rows[mine] - offset
                of_view = views[mine] if isinstance(views, np.ndarray) else views
                taken[mine] = array[where] if views is None else array[where, of_view]
        return taken
