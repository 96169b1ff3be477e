"""Validation rows of all folds in equal batches, each in the view that epochs are scored on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.rows.feed import Feed
from features.store.schema import Rows
from heads.bank.program import ScoringBatch, ScoringPlan
from heads.metrics.scoring import EPOCH_VIEW

_PART_BYTES = 2**26
"""Predictions that a program makes at once, at most."""
_SPARE = 16
"""One in so many batches may be computed twice so that parts are equal."""


@dataclass(frozen=True)
class ValidationRows:
    """The validation rows of all folds in equal batches.

    Attributes:
        rows: (batches, batch); filled up with a row of the fold.
        real: (batches, batch) bool: False for what only fills up.
        folds: (batches,) int32.
        rows_of: The rows of each fold.
        labels_of: Their labels, int32.
    """

    rows: Rows
    real: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int32]
    rows_of: list[Rows]
    labels_of: list[npt.NDArray[np.int32]]

    @classmethod
    def of(cls, rows_of: list[Rows], feed: Feed, batch: int) -> ValidationRows:
        """Cuts the rows of each fold into batches of at most ``batch``, so that little is filled up."""
        counts = [len(part) for part in rows_of]
        size = max(1, *(-(-count // max(1, -(-count // batch))) for count in counts))
        starts = [(fold, start) for fold, count in enumerate(counts) for start in range(0, count, size)]
        rows, real = np.zeros((len(starts), size), np.int64), np.zeros((len(starts), size), bool)
        for number, (fold, start) in enumerate(starts):
            mine = rows_of[fold][start : start + size]
            rows[number] = rows_of[fold][0]
            rows[number, : len(mine)] = mine
            real[number, : len(mine)] = True
        folds = np.array([fold for fold, _ in starts], np.int32)
        labels = [np.asarray(feed.store.labels[part], np.int32) for part in rows_of]
        return cls(rows, real, folds, rows_of, labels)

    @property
    def batch(self) -> int:
        """Rows of a batch."""
        return int(self.rows.shape[1])

    def batches(self, feed: Feed) -> Iterable[ScoringBatch]:
        """Yields the batches from the feed."""
        for rows, fold in zip(self.rows, self.folds, strict=True):
            yield feed.take(rows, EPOCH_VIEW), fold

    def plans(self, places: npt.NDArray[np.int32], batch_bytes: int) -> Iterator[ScoringPlan]:
        """Yields the batches in equal parts, so that one program scores all and little is in memory at once.

        The last part is filled up with batches from the beginning, if need be.

        Args:
            places: (batches, batch), of each row in ``Held``.
            batch_bytes: What the predictions of a batch take.
        """
        batches = len(self.folds)
        most = min(batches, max(1, _PART_BYTES // batch_bytes))
        at_once = next((count for count in range(most, 0, -1) if -batches % count <= batches // _SPARE), 1)
        for start in range(0, batches, at_once):
            part = np.arange(start, start + at_once) % batches
            yield ScoringPlan(places[part], self.folds[part])

    def by_fold(
        self, found: Iterable[npt.NDArray[np.float32]], slots: npt.NDArray[np.integer]
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]]:
        """Yields each fold's probabilities, (len(slots), rows, classes), and labels.

        Args:
            found: (all slots, batch, classes) of each batch; what follows the last of them is left out.
            slots: The ones wanted.
        """
        batches = iter(found)
        for fold, labels in enumerate(self.labels_of):
            mine, start = None, 0
            for real in self.real[self.folds == fold].sum(axis=1):
                batch = next(batches)
                if mine is None:
                    mine = np.empty((len(slots), len(labels), batch.shape[2]), np.float32)
                mine[:, start : start + real] = batch[slots, :real]
                start += real
            yield np.zeros((len(slots), 0, 1), np.float32) if mine is None else mine, labels
