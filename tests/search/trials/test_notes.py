"""The notes of a trial: under the names that journals have, with the types that they had."""

from __future__ import annotations

import optuna
import pytest

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
