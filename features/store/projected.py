"""A source whose features are projected onto fewer channels as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from features.store.projection import Projection
from features.store.schema import Rows
from features.store.source import CHUNK_BYTES, DerivedSource, Features, FeatureSource, rows_within


class ProjectedStore(DerivedSource):
    """Rows of a source, in a few directions of its channels; nothing is copied, every reading projects.

    A row comes out the same to the bit however it is read.
    """

    def __init__(self, source: FeatureSource, projection: Projection) -> None:
        height, width, channels = source.header.feature_shape
        assert channels == projection.channels, f"{channels=} {projection.channels=}"
        shape = height, width, projection.kept
        super().__init__(source, replace(source.header, feature_shape=shape, projection=projection))
        self._projection = projection

    def _taken(self, rows: Rows, views: npt.NDArray[np.int64] | int | None) -> Features:
        """See ``FeatureSource``."""
        shape = self.header.shape[1:] if views is None else self.header.feature_shape
        taken = np.empty((len(rows), *shape), self.header.dtype)
        step = rows_within(CHUNK_BYTES, self.source.header)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            read = self.source.take(rows[part], views[part] if isinstance(views, np.ndarray) else views)
            taken[part] = self._projection.apply(read, self.header.dtype, self.path)
        return taken

    def chunks(self, limit: int = CHUNK_BYTES) -> Iterator[tuple[int, Features]]:
        """Yields (first row, features with all views) of successive rows; see ``FeatureSource``."""
        for start, features in self.source.chunks(limit):
            yield start, self._projection.apply(features, self.header.dtype, self.path)
