"""Rows to batches: which row and which view when, and their features, read ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.runtime.ahead import ahead
from features.store.schema import Rows
from features.store.source import Features, FeatureSource


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch trains on.

    Attributes:
        rows: (steps, batch) row indices.
        views: (steps, batch) view of each.
    """

    rows: npt.NDArray[np.int64]
    views: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def steps_of(rows: int, folds: int, batch_size: int) -> int:
    """Returns in how many steps of an epoch a head trains.

    Args:
        rows: To train on; with folds, of all of them.
        folds: Of which a head sits out one, all taken to be of one size; 0 for none.
        batch_size: Upper bound of a batch.
    """
    return (folds - 1) * steps_of(rows, 0, folds * batch_size) if folds else -(-rows // batch_size)


def plan_epoch(rows: Rows, *, batch_size: int, views: int, seed: int, epoch: int) -> EpochPlan:
    """Shuffles rows into equal batches and draws one view for each row.

    Every row comes at least once. Shapes never change between epochs: the rows are spread over
    ceil(rows / batch_size) equal batches, and the few places left over are filled from the head of the shuffle.

    Args:
        rows: Row indices to train on.
        batch_size: Upper bound of a batch.
        views: Views of each row to draw from.
        seed: Seed of the run; with ``epoch`` it decides the plan alone.
        epoch: Any whole number of at least 0.
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    shuffled = generator.permutation(rows)
    steps = steps_of(len(rows), 0, batch_size)
    batch = -(-len(rows) // steps)
    placed = np.resize(shuffled, steps * batch).reshape(steps, batch)
    return EpochPlan(placed, generator.integers(0, views, placed.shape))


def plan_fold_epoch(
    folds: Sequence[Rows], *, batch_size: int, views: int, seed: int, epoch: int
) -> tuple[EpochPlan, npt.NDArray[np.int32]]:
    """Plans an epoch over several folds, each batch drawn from one of them, in shuffled order.

    All batches are equal: as large as the largest fold needs to fit into ceil(rows / batch_size) of them. Every row
    comes at least once; the places left over in a fold's batches are filled from the head of its shuffle.

    Args:
        folds: Row indices of each fold.
        batch_size: Upper bound of a batch.
        views: Views of each row to draw from.
        seed: Seed of the run.
        epoch: Any whole number of at least 0.

    Returns:
        The plan, and the fold of each of its batches, (steps,).
    """
    generator = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    steps = [steps_of(len(rows), 0, batch_size) for rows in folds]
    batch = max(-(-len(rows) // count) for rows, count in zip(folds, steps, strict=True))
    placed = [
        np.resize(generator.permutation(rows), count * batch).reshape(count, batch)
        for rows, count in zip(folds, steps, strict=True)
    ]
    order = generator.permutation(sum(steps))
    batches = np.concatenate(placed)[order]
    of_fold = np.repeat(np.arange(len(folds), dtype=np.int32), steps)[order]
    return EpochPlan(batches, generator.integers(0, views, batches.shape)), of_fold


class Feed:
    """Features of chosen rows of a source, in memory where they fit, from the disk where they do not.

    Args:
        store: Where the rows are: one store, or several as one.
        rows: The rows that will be asked for; no others may be.
        memory_bytes: Upper bound of what may be held in memory.
    """

    def __init__(self, store: FeatureSource, rows: Rows, *, memory_bytes: int) -> None:
        self.store = store
        self.rows = np.sort(rows)
        self.resident = len(rows) * store.header.row_bytes <= memory_bytes
        self._features = store.take(self.rows) if self.resident else None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one bottleneck."""
        return self.store.header.feature_shape

    @property
    def views(self) -> int:
        """Number of views of each row."""
        return len(self.store.header.views)

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """(rows,) class index of each of ``self.rows``."""
        return np.asarray(self.store.labels[self.rows])

    def take(self, rows: npt.NDArray[np.int64], views: npt.NDArray[np.int64] | int) -> Features:
        """Returns the features of some rows (any order, repeats allowed), each in its view."""
        if self._features is not None:
            return np.asarray(self._features[np.searchsorted(self.rows, rows), views])
        return self.store.take(rows, views)

    def train_batches(self, plan: EpochPlan) -> Iterator[tuple[Features, npt.NDArray[np.int32]]]:
        """Yields (features, labels) of every step of a plan, the next one read while this one is used."""
        steps = zip(plan.rows, plan.views, strict=True)
        return ahead((self.take(rows, views), self.store.labels[rows]) for rows, views in steps)

    def score_batches(self, batch_size: int, view: int) -> Iterator[Features]:
        """Yields the features of all rows in one view, in the order of ``self.rows``; the last batch may be short."""
        for start in range(0, len(self.rows), batch_size):
            if self._features is not None:
                yield self._features[start : start + batch_size, view]
            else:
                yield self.take(self.rows[start : start + batch_size], view)
