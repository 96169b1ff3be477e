"""Studies in memory of trials that are there already."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from search.setup.new_study import new_study
from search.setup.optuna_internals import id_of_trial


class GivenTrials(InMemoryStorage):
    """Holds the trials of one study as they are: added one by one, each would be checked and copied.

    That would be most of the time that a study of thousands of trials takes to be read, or to be drawn from.
    """

    def __init__(self, trials: Iterable[FrozenTrial]) -> None:
        super().__init__()
        self._given = list(trials)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See ``BaseStorage``."""
        del study_id
        chosen = [one for one in self._given if states is None or one.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See ``BaseStorage``."""
        for trial in self._given:
            if id_of_trial(trial) == trial_id:
                return trial
        raise KeyError(trial_id)

    # Of what a storage in memory notes of trials as they are added there is nothing.
    get_best_trial = BaseStorage.get_best_trial
    get_trial_id_from_study_id_trial_number = BaseStorage.get_trial_id_from_study_id_trial_number
    get_trial_number_from_id = BaseStorage.get_trial_number_from_id
    get_trial_param = BaseStorage.get_trial_param


def study_of(scored: Iterable[tuple[FrozenTrial, float]]) -> optuna.Study:
    """Returns a study of trials as of ones that have come to their ends with the scores given here; more is better."""
    return new_study(storage=GivenTrials(_ended(*one) for one in scored), direction="maximize")


def _ended(trial: FrozenTrial, value: float) -> FrozenTrial:
    ended = copy.copy(trial)
    ended.state, ended.value = TrialState.COMPLETE, value
    return ended
