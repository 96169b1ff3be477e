"""What repeats make of the validation rows: kept in files or in the record, and read back to the bit."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import optuna
import pytest
from conftest import build_store
from ended_study import probabilities
from made_data import made_data
from optuna.trial import FrozenTrial

from features.runtime.errors import InputError
from heads.metrics.scoring import Score
from heads.model.spec import HeadSpec
from search.finish import repeat_predictions
from search.finish.repeat_predictions import Predictions
from search.setup.data import SearchData
from search.setup.optuna_internals import note_beside
from search.trials.ask_tell import Asked
from search.trials.notes import TrialNotes

SCORE = Score(0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> SearchData:
    store = build_store(tmp_path_factory.mktemp("predictions") / "store.h5", rows=96)
    return made_data(store, share=0.25, seed=1, resident=False)


@pytest.fixture
def study(tmp_path) -> optuna.Study:
    return optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db")


def ask(study: optuna.Study) -> Asked:
    trial = study.ask()
    TrialNotes.write(trial, ordinal=trial.number)
    return Asked(trial, trial.number, HeadSpec(), 0)


def told(study: optuna.Study) -> FrozenTrial:
    return study.get_trials()[-1]


@pytest.mark.parametrize("in_record", [False, True])
def test_what_was_offered_is_read_to_the_bit(tmp_path, data, study, in_record, monkeypatch):
    monkeypatch.setattr(repeat_predictions, "_PART", 100)  # in several pieces
    kept = Predictions(tmp_path / "kept", data, "accuracy", in_record=in_record)
    drawn = np.random.default_rng(0).dirichlet(np.ones(len(data.store.classes)), len(data.validation_labels))
    drawn = drawn.astype(np.float32)
    kept.offer(ask(study), [], SCORE, [drawn])
    np.testing.assert_array_equal(kept.read(told(study)), drawn)
    assert any((tmp_path / "kept").iterdir()) != in_record
    # Whoever reads looks in both places: a study that was begun alone may go on with others.
    other = Predictions(tmp_path / "kept", data, "accuracy", in_record=not in_record)
    np.testing.assert_array_equal(other.read(told(study)), drawn)


def test_what_is_in_the_record_is_seen_from_another_folder(tmp_path, data, study):
    made = probabilities(data, 5)
    Predictions(tmp_path / "here", data, "accuracy", in_record=True).offer(ask(study), [], SCORE, [made])
    there = Predictions(tmp_path / "there", data, "accuracy", in_record=True)
    assert there.scores(there.read(told(study)))[0].accuracy == 5 / len(made)


def test_a_header_that_asks_for_more_memory_than_there_is_counts_as_damage(tmp_path, data, study):
    kept = Predictions(tmp_path / "kept", data, "accuracy", in_record=False)
    kept.offer(ask(study), [], SCORE, [probabilities(data, 5)])
    (file,) = (tmp_path / "kept").iterdir()
    with file.open("wb") as raw:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 50, 4)}
        np.lib.format.write_array_header_1_0(raw, header)
    with pytest.raises(InputError, match="a damaged file"):
        kept.read(told(study))


def _text(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda made: "no base 64!", "base64"),
        (lambda made: _text(made[:-1]), "reshape"),
        (lambda made: _text(made) + _text(made), "base64|reshape"),
        (lambda made: _text(made * np.nan), "values that are none"),
        (lambda made: _text(-made), "values that are none"),
    ],
)
def test_damage_in_the_record_is_said_in_one_line(tmp_path, data, study, damage, found):
    note_beside(ask(study).trial, "validation:0", damage(probabilities(data, 5)))
    kept = Predictions(tmp_path / "kept", data, "accuracy", in_record=True)
    with pytest.raises(InputError, match=f"(?i)trial 0: expected class probabilities.*({found})") as refused:
        kept.read(told(study))
    assert "\n" not in str(refused.value)


def test_a_run_without_any_is_named(tmp_path: Path, data: SearchData, study: optuna.Study):
    ask(study)
    with pytest.raises(InputError, match=r"0\.npy: expected class probabilities"):
        Predictions(tmp_path / "kept", data, "accuracy", in_record=True).read(told(study))


def test_with_folds_a_run_has_a_score_of_each(tmp_path, data):
    folded = made_data(data.store.path, validation_share=0.0, test_share=0.25, folds=3, seed=1, resident=False)
    kept = Predictions(tmp_path / "kept", folded, "accuracy", in_record=False)
    first, *others = folded.folds
    scores = kept.scores(probabilities(folded, len(first)))
    assert kept.folds == len(scores) == 3
    assert [one.accuracy for one in scores] == [1, *[0] * len(others)]
