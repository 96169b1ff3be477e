"""The notes of a trial: under the names that journals have, with the types that they had."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from heads.model.spec import HeadSpec
from search.trials.notes import TrialNotes

SPEC = HeadSpec(conv_width=32, dropout=0.25)
NOTES = {
    "ordinal": 4,
    "rerun_of": 2,
    "spec": SPEC,
    "first_epoch": 7,
    "learning_rates": [0.1, 0.05],
    "epochs": 9,
    "best_epoch": 2,
    "validation_loss": 0.5,
    "validation_accuracy": 0.75,
    "parameters": 1234,
    "failure": "diverged in epoch 3",
}
PAUSES = [("2026-11-29T18:45:24.250000", "2026-11-29T18:56:36")]


def test_what_was_noted_is_read_and_stands_in_the_storage_under_its_name():
    study = optuna.create_study()
    trial = study.ask()
    TrialNotes.write(trial, **NOTES, pauses=PAUSES)
    (frozen,) = study.get_trials()
    assert {name: getattr(TrialNotes.of(frozen), name) for name in NOTES} == NOTES
    assert frozen.user_attrs == {**NOTES, "spec": SPEC.to_dict(), "pauses": PAUSES}
    ((since, until),) = TrialNotes.of(frozen).pauses
    assert (since.isoformat(), until.isoformat()) == PAUSES[0]
    assert TrialNotes.of(trial).spec == SPEC  # running, too


def test_of_a_trial_that_has_just_come_nothing_is_known():
    notes = TrialNotes.of(optuna.create_study().ask())
    assert (notes.has_ordinal, notes.has_spec) == (False, False)
    assert (notes.rerun_of, notes.failure, notes.epochs) == (None, None, 0)
    with pytest.raises(KeyError, match="ordinal"):
        _ = notes.ordinal


def test_notes_are_made_in_the_order_given():
    assert list(TrialNotes.as_attributes(rerun_of=1, ordinal=2)) == ["rerun_of", "ordinal"]


@pytest.mark.parametrize("place", [{"ordinal": 3}, {}], ids=["placed", "killed before it had a place"])
def test_a_trial_that_runs_another_again_takes_its_place(place):
    study = optuna.create_study()
    TrialNotes.write(study.ask(), **place, epochs=2, failure="interrupted")
    assert TrialNotes.as_rerun_of(study.trials[0]) == {**place, "rerun_of": 0}


def test_what_is_noted_is_what_a_record_from_elsewhere_may_have():
    whole = TrialNotes.as_attributes(**NOTES, pauses=[list(pause) for pause in PAUSES])
    TrialNotes(whole).check()
    TrialNotes({}).check()
    wrong = {"ordinal": -1, "spec": "none", "learning_rates": 0.1, "best_epoch": 0, "worker": 5, "store": []}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            TrialNotes(whole | {name: value}).check()


def test_a_trial_lacks_what_is_of_all_that_have_come_so_far():
    whole = TrialNotes.as_attributes(**NOTES)
    assert TrialNotes(whole).lacks(TrialState.COMPLETE) is None
    assert TrialNotes({}).lacks(TrialState.RUNNING) is None
    for name in ("ordinal", "spec", "epochs"):
        assert TrialNotes(whole | {name: None}).lacks(TrialState.PRUNED) == name
    own = {name: value for name, value in whole.items() if name != "spec"} | {"own": {}}
    assert TrialNotes(own).lacks(TrialState.COMPLETE) is None
