"""Optuna's names that it does not promise to keep: each test says which one an upgrade has changed."""

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from search.setup import optuna_internals as internals


@pytest.fixture
def study() -> optuna.Study:
    """The second study of its storage: numbers in the storage and in the study differ."""
    storage = InMemoryStorage()
    optuna.create_study(storage=storage, study_name="first").ask()
    return optuna.create_study(storage=storage, study_name="second")


def storage_of(study: optuna.Study) -> optuna.storages.BaseStorage:
    return study._storage


def test_trial_is_made_of_a_study_and_a_number_in_the_storage(study):
    asked = study.ask()
    asked.suggest_float("x", 0, 1)
    running = internals.running_trial(study, study.get_trials()[0])
    assert (running.number, running.params) == (asked.number, asked.params), "optuna.trial.Trial(study, trial_id)"
    running.report(0.5, 1)
    running.set_user_attr("told", 1)
    study.tell(running, 0.25)
    (told,) = study.get_trials()
    assert (told.state, told.value) == (TrialState.COMPLETE, 0.25)
    assert (told.intermediate_values, told.user_attrs) == ({1: 0.5}, {"told": 1})


def test_frozen_trial_knows_its_number_in_the_storage(study):
    study.ask()
    (trial,) = study.get_trials()
    number = internals.id_of_trial(trial)
    assert number != trial.number
    assert storage_of(study).get_trial(number).number == trial.number, "FrozenTrial._trial_id"


def test_frozen_study_knows_its_number_and_its_attributes_can_be_laid_over(study):
    frozen = next(one for one in storage_of(study).get_all_studies() if one.study_name == "second")
    assert isinstance(frozen, internals.FrozenStudy), "optuna.study._frozen.FrozenStudy"
    number = storage_of(study).get_study_id_from_name("second")
    assert internals.id_of_study(frozen) == number, "FrozenStudy._study_id"


def test_nothing_else_touches_private_names_of_optuna():
    """The dashboard's overlay and the book of trials go through the adapter."""
    import re

    from conftest import ROOT

    private = re.compile(
        r"\._trial_id|\._study_id|\._system_attrs|\._user_attrs|\._storage\b|optuna[\w.]*\._\w|import _"
    )
    adapter = ROOT / "search" / "setup" / "optuna_internals.py"
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "search").rglob("*.py")
        if path != adapter
        for line in path.read_text(encoding="utf-8").splitlines()
        if private.search(line)
    }
    assert not found
