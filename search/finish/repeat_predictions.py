"""What the repeats of finalists make of the validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial

from heads.metrics.scoring import Objective, Probabilities, Score, score
from heads.model.weights import Weights
from search.record.row_arrays import RowArrays
from search.setup.data import SearchData
from search.trials.ask_tell import Asked

PREDICTIONS = "validation"


class Predictions:
    """Keeps the probabilities of each run, and scores them."""

    takes_pruned = True

    def __init__(self, folder: Path, data: SearchData, objective: Objective, *, in_record: bool) -> None:
        """Prepares.

        Args:
            folder: Holds the files; made where it is not there.
            data: Rows to score on.
            objective: What a score ranks by.
            in_record: Whether the trials are to hold them, see ``search.record.row_arrays.RowArrays``.
        """
        rows = data.folds or (data.validation.rows,)
        self._labels = [data.validation.store.labels[part] for part in rows]
        self._objective = objective
        shape = sum(map(len, self._labels)), len(data.store.classes)
        what = "class probabilities of the validation rows"
        self._arrays = RowArrays(folder, PREDICTIONS, shape, what=what, in_record=in_record)

    def offer(
        self, asked: Asked, weights: Sequence[Weights], score: Score, probabilities: Sequence[Probabilities]
    ) -> None:
        """Writes the probabilities, those of all folds one behind the other."""
        self._arrays.write(asked.trial, asked.ordinal, np.concatenate(probabilities))

    def write_out(self) -> None:
        """Everything is where it belongs already."""

    def read(self, run: FrozenTrial) -> Probabilities:
        """Returns what a run made of the rows: (rows, classes).

        Raises:
            InputError: It is missing or damaged.
        """
        return self._arrays.read(run)

    def scores(self, probabilities: Probabilities) -> list[Score]:
        """Scores each fold."""
        ends = np.cumsum([len(labels) for labels in self._labels])[:-1]
        parts = zip(np.split(probabilities, ends), self._labels, strict=True)
        return [score(part, labels, self._objective) for part, labels in parts]

    @property
    def folds(self) -> int:
        """Scores that a run has."""
        return len(self._labels)
