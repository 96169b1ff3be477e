"""Validation rows of all folds in equal batches, each in the view that epochs are scored on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.rows.feed import Feed
from features.store.schema import Rows
from heads.metrics.scoring import EPOCH_VIEW


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

    def batches(self, feed: Feed) -> Iterable[tuple[Any, Any]]:
        """Yields (features (batch, h, w, c), fold) from the feed."""
        for rows, fold in zip(self.rows, self.folds, strict=True):
            yield feed.take(rows, EPOCH_VIEW), fold

    def of_fold(
        self, found: npt.NDArray[np.float32], fold: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Returns, of (batches, slots, batch, classes), the fold's (slots, rows, classes), and its labels."""
        mine = self.folds == fold
        return found[mine].swapaxes(1, 2)[self.real[mine]].swapaxes(0, 1), self.labels_of[fold]
