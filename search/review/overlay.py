"""A study to look at and to pin notes on, whose record nobody but its search writes.

The dashboard wants a storage that it can write to: notes, figures and artifacts are attributes of studies and trials.
A search's journal has exactly one writer (``search.record.journal``): what others append is cut off on ``--resume``,
or shifts the snapshot's place in it. So what is read comes from the record itself, anew at each look; what is pinned
stays in this process's memory, laid over it; and what would change the study is refused. Compared with a copy, nothing
has to be brought up to date; compared with a second journal behind the first, numbers of trials cannot come apart. A
database (``--storage``) is looked at in the same way.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Container, Sequence
from copy import copy
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from features.runtime.errors import BottleneckError
from search.record.database import no_record
from search.record.storage import JOURNAL, open_storage
from search.setup.optuna_internals import FrozenStudy, id_of_study, id_of_trial, notes_artifact
from search.trials.ranking import ranking

LINE = 96
"""Characters that are shown of an attribute: the dashboard breaks no line, its page grows as wide as the longest."""
TAIL = 512
"""Bytes before the end that tell a journal that has grown from one that was cut back and has grown anew."""


class Overlay(BaseStorage):
    """Reads a study's record through, keeps what is attached to studies in memory, refuses all else.

    Long attributes of trials are shown in short, and artifacts that the record notes not at all: their files are in
    a store that nobody here knows. ``record`` has all as it is.
    """

    def __init__(self, folder: Path, url: str | None, name: str | None = None) -> None:
        """Opens the record of a study directory.

        Args:
            folder: Holds the journal where no ``url`` is given.
            url: An Optuna storage URL, as the study's record has it.
            name: The study that must be there; None for any.

        Raises:
            InputError: There is none.
        """
        self._lock = threading.Lock()
        self._name = name
        self._journal = None if url else folder / JOURNAL
        self._tail: tuple[int, bytes] = (0, b"")
        self._opened = open_storage(folder, url, name)
        self._on_studies: dict[int, dict[str, Any]] = {}
        self._on_trials: dict[int, dict[str, Any]] = {}

    @property
    def record(self) -> BaseStorage:
        """The record. ``--resume`` cuts a journal back to the last snapshot: then it is read from its start again.

        Raises:
            InputError: The journal is not there any more.
        """
        if self._journal is None:
            return self._opened
        with self._lock:
            size, tail = self._tail
            try:
                file = self._journal.open("rb")
            except FileNotFoundError as error:
                raise no_record(f"{self._journal}", self._name, "no such file") from error
            with file:
                file.seek(max(0, size - TAIL))
                if file.read(min(size, TAIL)) != tail:
                    self._opened = JournalStorage(JournalFileBackend(str(self._journal)))
                end = file.seek(0, 2)
                file.seek(max(0, end - TAIL))
                self._tail = (end, file.read(min(end, TAIL)))
            return self._opened

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Pins something on a study, in memory; an artifact's removal or an emptied figure too."""
        self._on_studies.setdefault(study_id, {})[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Returns the record's attributes and what was pinned on them."""
        return _without_artifacts(self.record.get_study_system_attrs(study_id)) | self._on_studies.get(study_id, {})

    def get_all_studies(self) -> list[FrozenStudy]:
        """Returns the studies with what was pinned on them."""
        studies = self.record.get_all_studies()
        for study in studies:
            pins = self._on_studies.get(id_of_study(study), {})
            study.system_attrs = _without_artifacts(study.system_attrs) | pins
        return studies

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Pins something on a trial, in memory: an artifact, also where the trial has finished."""
        self._on_trials.setdefault(trial_id, {})[key] = value

    def let_go_of_trial_system_attr(self, trial_id: int, key: str) -> None:
        """Takes back what was pinned on a trial."""
        self._on_trials.get(trial_id, {}).pop(key, None)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Returns a trial with what was pinned on it."""
        return self._with_pins(self.record.get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Returns a study's trials with what was pinned on them."""
        trials = self.record.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [self._with_pins(trial) for trial in trials]

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Returns the best as the search has it: of equal accuracies that of the lower loss, which Optuna ignores."""
        ranked = ranking(optuna.load_study(study_name=self.get_study_name_from_id(study_id), storage=self))
        return ranked[0] if ranked else super().get_best_trial(study_id)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """Returns the record's attributes of a trial and what was pinned on it."""
        return dict(self.get_trial(trial_id).system_attrs)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Reads through."""
        return self.record.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Reads through."""
        return self.record.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Reads through."""
        return self.record.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Reads through."""
        return self.record.get_study_user_attrs(study_id)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Refused."""
        return _refuse()

    def delete_study(self, study_id: int) -> None:
        """Refused."""
        _refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Refused."""
        return _refuse()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Refused."""
        _refuse()

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Refused."""
        return _refuse()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Refused."""
        _refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()

    def _with_pins(self, trial: FrozenTrial) -> FrozenTrial:
        trial = copy(trial)  # the record's own objects stay as they are
        trial.system_attrs = _without_artifacts(trial.system_attrs) | self._on_trials.get(id_of_trial(trial), {})
        trial.user_attrs = {name: in_short(value) for name, value in trial.user_attrs.items()}
        return trial


def _without_artifacts(attributes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if not notes_artifact(key)}


def in_short(value: Any) -> Any:
    """Returns lists and dictionaries that are long in JSON as one line: repeats counted, few digits, an ellipsis."""
    if not isinstance(value, (list, dict)) or len(json.dumps(value)) <= LINE:
        return value
    if isinstance(value, dict):
        parts = [f"{name} {_digits(one)}" for name, one in value.items()]
    else:
        parts = [f"{text} x {len([*same])}" for text, same in groupby(map(_digits, value))]
    text = ", ".join(parts)
    return text if len(text) <= LINE else f"{text[: LINE - 1]}…"


def _digits(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _refuse() -> NoReturn:
    raise BottleneckError("the dashboard only looks at the study; its search alone writes it")
