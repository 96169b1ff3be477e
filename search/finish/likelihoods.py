"""How probable each trial's head found the true class of each validation row: what an average of heads is judged by.

Kept of every trial that completes, so that finalists can be picked that are good together, and not only each by itself:
see ``search.finish.picking``. A head that has learnt its rows by heart is far too sure, and would be passed over for
one that is worse but less sure; so each head's probabilities are calibrated first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial

from heads.metrics.calibration import fit_temperature, with_temperature
from heads.metrics.scoring import Probabilities, Score
from heads.model.weights import Weights
from search.record.row_arrays import Array, RowArrays
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.trials.ask_tell import Asked

FOLDER = "likelihoods"
_AT_ONCE = 2**18
"""Probabilities that are calibrated at once; of more, a temperature is fitted on evenly spaced rows."""


class Likelihoods:
    """Keeps the calibrated probability of the true class of each validation row, for each trial that completes.

    Attributes:
        weights: (rows,) what each row counts: the same for all, or for ``balanced_accuracy`` each class alike; the mean
            is 1.
    """

    takes_pruned = False

    def __init__(self, folder: Path, labels: npt.NDArray[np.int32], *, balanced: bool, in_record: bool) -> None:
        """Prepares.

        Args:
            folder: Holds the files; made where it is not there.
            labels: True classes of the validation rows, those of all folds one behind the other.
            balanced: Whether each class counts alike, and not each row.
            in_record: Whether the trials are to hold them, see ``search.record.row_arrays.RowArrays``.
        """
        self._labels = labels
        counts = np.bincount(labels)
        of_classes = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        self.weights = of_classes[labels] if balanced else np.ones(len(labels))
        what = "probabilities of the validation rows' classes"
        self._arrays = RowArrays(folder, FOLDER, labels.shape, what=what, in_record=in_record)

    @classmethod
    def of_study(cls, folder: Path, config: StudyConfig, data: SearchData) -> Self:
        """Returns those of a study, by its directory."""
        balanced, in_record = config.objective == "balanced_accuracy", config.storage is not None
        return cls(folder / FOLDER, data.validation_labels, balanced=balanced, in_record=in_record)

    def offer(
        self, asked: Asked, weights: Sequence[Weights], score: Score, probabilities: Sequence[Probabilities]
    ) -> None:
        """Keeps what a head makes of the rows."""
        made = np.concatenate(probabilities)
        parts = -(-made.size // _AT_ONCE)
        temperature = fit_temperature(made[::parts], self._labels[::parts])
        blocks = zip(np.array_split(made, parts), np.array_split(self._labels, parts), strict=True)
        true = [with_temperature(block, temperature)[np.arange(len(block)), labels] for block, labels in blocks]
        self._arrays.write(asked.trial, asked.ordinal, np.concatenate(true))

    def write_out(self) -> None:
        """Everything is where it belongs already."""

    def read(self, trials: Iterable[FrozenTrial]) -> dict[int, Array]:
        """Returns those of trials by their numbers, (rows,) each; a trial of an earlier version has none.

        Raises:
            InputError: One is damaged.
        """
        return {trial.number: self._arrays.read(trial) for trial in trials if self._arrays.has(trial)}
