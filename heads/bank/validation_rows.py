"""Validation rows of all folds, in all of their views, in equal batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.rows.feed import Feed
from features.store.schema import Rows
from heads.metrics.scoring import average_views


@dataclass(frozen=True)
class ValidationRows:
    """The validation rows of all folds, each as often as it has views, in equal batches.

    Attributes:
        rows: (batches, batch); filled up with a row of the fold.
        views: (batches, batch) int32.
        real: (batches, batch) bool: False for what only fills up.
        folds: (batches,) int32.
        rows_of: The rows of each fold.
        labels_of: Their labels, int32.
        views_of_row: How many views a row has.
    """

    rows: Rows
    views: npt.NDArray[np.int32]
    real: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int32]
    rows_of: list[Rows]
    labels_of: list[npt.NDArray[np.int32]]
    views_of_row: int

    @classmethod
    def of(cls, rows_of: list[Rows], feed: Feed, batch: int) -> ValidationRows:
        """Cuts the rows of each fold into batches of at most ``batch``, so that little is filled up."""
        counts = [len(part) * feed.views for part in rows_of]
        size = max(1, *(-(-count // max(1, -(-count // batch))) for count in counts))
        starts = [(fold, start) for fold, count in enumerate(counts) for start in range(0, count, size)]
        rows, views = np.zeros((len(starts), size), np.int64), np.zeros((len(starts), size), np.int32)
        real = np.zeros((len(starts), size), bool)
        for number, (fold, start) in enumerate(starts):
            places = np.arange(start, min(start + size, counts[fold]))
            rows[number] = rows_of[fold][0]
            rows[number, : len(places)] = rows_of[fold][places // feed.views]
            views[number, : len(places)] = places % feed.views
            real[number, : len(places)] = True
        folds = np.array([fold for fold, _ in starts], np.int32)
        labels = [np.asarray(feed.store.labels[part], np.int32) for part in rows_of]
        return cls(rows, views, real, folds, rows_of, labels, feed.views)

    @property
    def batch(self) -> int:
        """Rows of a batch."""
        return int(self.rows.shape[1])

    def batches(self, feed: Feed) -> Iterable[tuple[Any, Any]]:
        """Yields (features (batch, h, w, c), fold) from the feed."""
        for rows, views, fold in zip(self.rows, self.views, self.folds, strict=True):
            yield feed.take(rows, views), fold

    def of_fold(
        self, found: npt.NDArray[np.float32], fold: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Returns, of (batches, slots, batch, classes), the fold's (slots, rows, classes), and its labels.

        Probabilities are averaged over the views.
        """
        mine = self.folds == fold
        each = found[mine].swapaxes(1, 2)[self.real[mine]]
        by_view = each.reshape(-1, self.views_of_row, *each.shape[1:]).swapaxes(0, 1)
        return average_views(list(by_view)).swapaxes(0, 1), self.labels_of[fold]
