"""The directions in which a backbone's channels are strongest: uncentred principal directions of the maps of some rows.

Uncentred, because the first layer of a head has no bias: what is left is a linear map of the channels, and a kernel in
these directions is a kernel of the channels (``basis @ kernel``), exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.rows.given_parts import part_rows
from features.runtime.errors import InputError
from features.runtime.progress import OnProgress, unwatched
from features.store.projection import Projection
from features.store.schema import Rows
from features.store.source import CHUNK_BYTES, FeatureSource, rows_within

SAMPLE = 1024
"""Rows that decide the directions, in all of their views: tens of thousands of places for a few thousand channels."""


@dataclass(frozen=True)
class Directions:
    """All principal directions, the strongest first.

    Attributes:
        basis: (channels, channels) float32, orthonormal columns.
        shares: (channels,) share of the sum of squares that the first one, two and so on hold.
        compressed_from: Fingerprint of the store.
    """

    basis: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float64]
    compressed_from: str

    def first(self, channels: int) -> Projection:
        """Returns the projection onto the strongest ``channels`` of them."""
        return Projection(np.ascontiguousarray(self.basis[:, :channels]), self.compressed_from)


def principal_directions(source: FeatureSource, rows: Rows, *, on_progress: OnProgress = unwatched) -> Directions:
    """Computes the directions from at most ``SAMPLE`` of some rows, evenly spaced among them.

    Products are float32 in blocks that are added up in float64. The signs are fixed: of each direction the number that
    is largest by its size is positive.

    Args:
        source: A source that is not compressed.
        rows: Rows that have features, sorted.
        on_progress: Told how many of the sampled rows have been read.

    Raises:
        InputError: A value is not finite.
    """
    chosen = rows if len(rows) <= SAMPLE else rows[np.arange(SAMPLE) * len(rows) // SAMPLE]
    channels = source.header.feature_shape[2]
    moment = np.zeros((channels, channels))
    step = rows_within(CHUNK_BYTES, source.header)
    for start in range(0, len(chosen), step):
        places = source.take(chosen[start : start + step]).reshape(-1, channels).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            moment += places.T @ places
        on_progress(min(start + step, len(chosen)), len(chosen))
    if not np.isfinite(moment).all():
        raise InputError(source.path, field="features", expected="finite values", found="NaN, infinity or larger ones")
    values, vectors = np.linalg.eigh(moment)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
    basis = np.ascontiguousarray(vectors * np.where(largest < 0, -1, 1), np.float32)
    return Directions(basis, np.cumsum(values) / max(values.sum(), np.finfo(float).tiny), source.fingerprint)


def default_training_rows(source: FeatureSource) -> Rows | None:
    """Returns the rows that a search with one validation part trains on; None where there is no such split."""
    try:
        return part_rows(source).split.train
    except InputError:
        return None


def require_channels(source: FeatureSource, channels: int) -> None:
    """Refuses to compress what is compressed, and to more channels than there are.

    Raises:
        InputError: Naming what does not fit.
    """
    if source.header.projection is not None:
        found = f"one that is compressed already, to {source.header.projection}"
        raise InputError(source.path, field="projection", expected="a store of all channels", found=found)
    most = source.header.feature_shape[2]
    if not 1 <= channels <= most:
        raise InputError("--channels", expected=f"1 to {most}, as {source.path} has them", found=channels)
