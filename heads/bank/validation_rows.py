"""Validation rows of all folds in equal batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.rows.feed import Feed
from features.store.schema import Rows


@dataclass(frozen=True)
class ValidationRows:
    """The validation rows of all folds in equal batches.

    Attributes:
        rows: (batches, batch); filled up with a row of the fold.
        labels: (batches, batch) int32.
        real: (batches, batch) bool: False for what only fills up.
        folds: (batches,) int32.
        rows_of: The rows of each fold.
    """

    rows: Rows
    labels: npt.NDArray[np.int32]
    real: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int32]
    rows_of: list[Rows]

    @classmethod
    def of(cls, rows_of: list[Rows], feed: Feed, batch: int) -> ValidationRows:
        """Cuts the rows of each fold into batches of ``batch``."""
        starts = [(fold, start) for fold, part in enumerate(rows_of) for start in range(0, len(part), batch)]
        rows = np.zeros((len(starts), batch), np.int64)
        real = np.zeros((len(starts), batch), bool)
        for number, (fold, start) in enumerate(starts):
            inside = rows_of[fold][start : start + batch]
            rows[number], rows[number, : len(inside)] = rows_of[fold][0], inside
            real[number, : len(inside)] = True
        labels = np.asarray(feed.store.labels[rows], np.int32)
        folds = np.array([fold for fold, _ in starts], np.int32)
        return cls(rows, labels, real, folds, rows_of)

    def batches(self, feed: Feed) -> Iterable[tuple[Any, Any]]:
        """Yields (features (views, batch, h, w, c), fold) from the feed."""
        for rows, fold in zip(self.rows, self.folds, strict=True):
            yield np.stack([feed.take(rows, view) for view in range(feed.views)]), fold

    def of_fold(
        self, found: npt.NDArray[np.float32], fold: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Returns, of (batches, slots, batch, classes), the fold's (slots, rows, classes), and its labels."""
        mine = self.folds == fold
        real = self.real[mine]
        return found[mine].swapaxes(1, 2)[real].swapaxes(0, 1), self.labels[mine][real]
