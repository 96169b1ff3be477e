"""One array for each trial, of the validation rows: beside the record, or in it where that is a database."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial, Trial

from features.hdf5.door import reading
from features.runtime.errors import InputError
from features.runtime.files import replacing
from search.setup.optuna_internals import note_beside
from search.trials.notes import TrialNotes

_PART = 2**15
"""Characters of one attribute: there are databases that take no text beyond 64 kB."""

Array = npt.NDArray[np.float32]


class RowArrays:
    """Keeps a float32 array of probabilities for each trial.

    A small file for each, named by the trial's ordinal; where the record is a database in the record itself, so that
    what one machine has trained another can compare. The dashboard shows nothing of it.

    Attributes:
        shape: Of each array.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], *, what: str, in_record: bool) -> None:
        """Prepares.

        Args:
            folder: Holds the files; made where it is not there.
            name: Of the attributes.
            shape: Of each array.
            what: They are called in messages.
            in_record: Whether the trials are to hold them.
        """
        self.shape = shape
        self._folder = folder
        self._what = what
        self._name = name
        self._in_record = in_record
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, trial: Trial, ordinal: int, array: Array) -> None:
        """Keeps the array of a trial."""
        if self._in_record:
            text = base64.b64encode(array.astype("<f4").tobytes()).decode()
            for place, start in enumerate(range(0, len(text), _PART)):
                note_beside(trial, f"{self._name}:{place}", text[start : start + _PART])
            return
        with replacing(self._path(ordinal)) as temporary, temporary.open("wb") as file:
            np.save(file, array.astype(np.float32))

    def has(self, trial: FrozenTrial) -> bool:
        """Whether there is one of a trial, in either place."""
        return any(True for _ in self._parts(trial)) or self._path(TrialNotes.of(trial).ordinal).is_file()

    def read(self, trial: FrozenTrial) -> Array:
        """Returns the array of a trial, from where it is.

        Raises:
            InputError: It is missing or damaged.
        """
        if text := "".join(self._parts(trial)):
            try:
                found = np.frombuffer(base64.b64decode(text, validate=True), "<f4").reshape(self.shape)
                self._check(found)
            except ValueError as error:
                field = f"trial {trial.number}"
                raise InputError(self._folder.parent, field=field, expected=self._what, found=f"{error}") from error
            return found
        path = self._path(TrialNotes.of(trial).ordinal)
        with reading(path, self._what), path.open("rb") as file:
            if path.stat().st_size > np.prod(self.shape, dtype=np.int64) * 8 + 4096:
                raise ValueError("more than that")
            array: Array = np.load(file)
            self._check(array)
        return array

    def _path(self, ordinal: int) -> Path:
        return self._folder / f"{ordinal}.npy"

    def _parts(self, trial: FrozenTrial) -> Iterator[str]:
        """The pieces of the text that a trial's record holds."""
        for place in count():
            part = trial.system_attrs.get(f"{self._name}:{place}")
            if not isinstance(part, str):
                return
            yield part

    def _check(self, array: Array) -> None:
        if array.shape != self.shape or array.dtype.kind != "f":
            raise ValueError(f"{array.dtype} {array.shape}")
        if not (np.isfinite(array) & (array >= 0)).all():
            raise ValueError("values that are none")
