"""What the repeats of finalists make of the validation rows: beside their record, or in it where that is a database."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
from optuna.trial import FrozenTrial

from features.hdf5.door import reading
from features.runtime.errors import InputError
from features.runtime.files import write_array
from heads.metrics.scoring import Objective, Probabilities, Score, mean_probabilities, score
from heads.model.weights import Weights
from search.setup.data import SearchData
from search.setup.optuna_internals import note_beside
from search.trials.ask_tell import Asked
from search.trials.notes import TrialNotes

PREDICTIONS = "validation"
_PART = 2**15
"""Characters of one attribute: there are databases that take no text beyond 64 kB."""


def of_each_seed(members: Iterable[Sequence[Probabilities]]) -> list[Probabilities]:
    """Averages heads seed by seed, for as many seeds as there are repeats of each of them.

    Args:
        members: What the repeats of each head make of the rows.
    """
    return [mean_probabilities(seed) for seed in zip(*members, strict=False)]


def unchecked() -> None:
    """Stands for ``TopCheckpoints.check`` where nobody holds the study directory alone."""


class Predictions:
    """Keeps the probabilities of each run, and scores them.

    A small file for each run; where the record is a database in the record itself, so that what one machine has trained
    another can compare. The dashboard shows nothing of it.
    """

    def __init__(
        self,
        folder: Path,
        data: SearchData,
        objective: Objective,
        *,
        in_record: bool,
        check: Callable[[], object] = unchecked,
    ) -> None:
        """Prepares.

        Args:
            folder: Holds the files; made where it is not there.
            data: Rows to score on.
            objective: What a score ranks by.
            in_record: Whether the trials are to hold them.
            check: Makes sure that the study directory is still this study's, see ``TopCheckpoints``.
        """
        self._folder = folder
        self._in_record = in_record
        self._check = check
        rows = data.folds or (data.validation.rows,)
        self._labels = [data.validation.store.labels[part] for part in rows]
        self._classes = len(data.store.classes)
        self._objective = objective
        folder.mkdir(parents=True, exist_ok=True)

    def offer(
        self, asked: Asked, weights: Sequence[Weights], score: Score, probabilities: Sequence[Probabilities]
    ) -> None:
        """Writes the probabilities, those of all folds one behind the other."""
        together = np.concatenate(probabilities)
        if self._in_record:
            text = base64.b64encode(together.astype("<f4").tobytes()).decode()
            for index, start in enumerate(range(0, len(text), _PART)):
                note_beside(asked.trial, f"{PREDICTIONS}:{index}", text[start : start + _PART])
            return
        write_array(self._path(asked.ordinal), together)

    def write_held(self) -> None:
        """Everything is where it belongs already."""

    def write_out(self) -> None:
        """Everything is where it belongs already, if that is still this study's."""
        self._check()

    def read(self, run: FrozenTrial) -> Probabilities:
        """Returns what a run made of the rows: (rows, classes).

        Raises:
            InputError: It is missing or damaged.
        """
        shape = sum(map(len, self._labels)), self._classes
        expected = "class probabilities of the validation rows"
        if text := "".join(_parts(run)):
            field = f"trial {run.number}"
            try:
                found = np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(shape)
                _check(found, shape)
            except ValueError as error:
                raise InputError(self._folder.parent, field=field, expected=expected, found=f"{error}") from error
            return found
        path = self._path(TrialNotes.of(run).ordinal)
        with reading(path, expected):
            mapped: Probabilities = np.load(path, mmap_mode="r")  # so that no header asks for more than the file holds
            _check(mapped, shape)
            return np.array(mapped)

    def scores(self, probabilities: Probabilities) -> list[Score]:
        """Scores each fold."""
        ends = np.cumsum([len(labels) for labels in self._labels])[:-1]
        parts = zip(np.split(probabilities, ends), self._labels, strict=True)
        return [score(part, labels, self._objective) for part, labels in parts]

    @property
    def folds(self) -> int:
        """Scores that a run has."""
        return len(self._labels)

    def _path(self, ordinal: int) -> Path:
        return self._folder / f"{ordinal}.npy"


def _parts(run: FrozenTrial) -> Iterator[str]:
    """The pieces of the text that a run's record holds."""
    for index in count():
        part = run.system_attrs.get(f"{PREDICTIONS}:{index}")
        if not isinstance(part, str):
            return
        yield part


def _check(probabilities: Probabilities, shape: tuple[int, int]) -> None:
    if probabilities.shape != shape or probabilities.dtype.kind != "f":
        raise ValueError(f"{probabilities.dtype} {probabilities.shape}")
    if not (np.isfinite(probabilities) & (probabilities >= 0)).all():
        raise ValueError("values that are none")
