"""Studies in memory of trials that are there already: Optuna finds in them what it finds in others."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from search.setup.new_study import new_study
from search.trials.given import GivenTrials, study_of


@pytest.fixture
def study() -> optuna.Study:
    made = new_study(direction="minimize")
    for value in (0.5, 0.2, 0.7):
        made.add_trial(
            optuna.trial.create_trial(
                params={"rate": value}, distributions={"rate": FloatDistribution(0.1, 1.0, log=True)}, value=value
            )
        )
    made.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    return made


def given(study: optuna.Study) -> optuna.Study:
    return new_study(storage=GivenTrials(study.get_trials(deepcopy=False)), directions=study.directions)


def test_trials_are_found_as_in_the_study_that_they_are_of(study):
    same = given(study)
    assert same.trials == study.trials
    assert same.best_trial == study.best_trial
    assert same.best_params == {"rate": 0.2}
    assert len(same.get_trials(states=(TrialState.FAIL,))) == 1
    storage, number = same._storage, study._study_id
    for trial in study.trials:
        assert storage.get_trial_id_from_study_id_trial_number(number, trial.number) == trial._trial_id
        assert storage.get_trial_number_from_id(trial._trial_id) == trial.number
        assert storage.get_trial(trial._trial_id) == trial
    assert storage.get_trial_param(study.trials[1]._trial_id, "rate") == 0.2
    with pytest.raises(KeyError):
        storage.get_trial(99)


def test_they_are_copied_only_for_who_asks_for_copies(study):
    same = given(study)
    first = study.get_trials(deepcopy=False)[0]
    assert same.get_trials(deepcopy=False)[0] is first
    same.trials[0].params["rate"] = 0.9
    assert first.params == {"rate": 0.5}


def test_trials_of_other_values_leave_those_that_they_are_of_as_they_are(study):
    other = study_of([(study.trials[3], 2.0), (study.trials[0], 1.0)])
    assert other.best_trial.number == 3
    assert {trial.state for trial in other.trials} == {TrialState.COMPLETE}
    assert study.trials[3].state == TrialState.FAIL
    assert study.trials[0].value == 0.5
