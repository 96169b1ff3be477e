"""The table of trials says what the record says, a row a trial."""

from __future__ import annotations

from dataclasses import fields

import pandas as pd
import pytest
from made_study import MadeStudy, make_config
from optuna.distributions import IntDistribution
from optuna.trial import create_trial

from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from search.record.study_record import read_record
from search.review.tables import trials_frame
from search.setup.own_function import OwnHeadRecord
from search.trials.notes import TrialNotes


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    made = MadeStudy(tmp_path_factory.mktemp("tables") / "study", make_config(trials=20))
    made.train(15)
    made.begin()
    made.close()
    return read_record(made.folder)


@pytest.fixture(scope="module")
def frame(record) -> pd.DataFrame:
    return trials_frame(record)


def test_there_is_a_row_for_each_trial_and_a_column_for_each_field_of_a_head(record, frame):
    names = [field.name for field in fields(HeadSpec)]
    first = ["state", "value", "epochs", "best_epoch", "is_article", "seconds"]
    assert list(frame.columns) == [*first, *names, "failure"]
    assert list(frame.index) == [trial.number for trial in record.trials]
    assert frame.index.name == "number"


def test_it_counts_as_the_summary_does(record, frame):
    summary, counts = record.summary, frame["state"].value_counts()
    assert counts["completed"] == summary.completed > 0
    assert counts["pruned"] == summary.pruned > 0
    assert counts["failed"] == summary.failed > 0
    assert counts["running"] == 1
    assert frame["epochs"].sum() == summary.trial_epochs + 2  # those of the running one
    assert frame["value"].idxmax() == summary.best.number
    assert list(frame.index[frame["is_article"]]) == [summary.article.number]


def test_a_head_is_the_trials_own(record, frame):
    for trial in record.trials:
        told = frame.loc[trial.number, [field.name for field in fields(HeadSpec)]].to_dict()
        assert HeadSpec.from_dict(told) == TrialNotes.of(trial).spec


def test_what_is_not_known_is_missing(frame):
    assert frame.loc[frame["state"] != "completed", ["value", "best_epoch"]].isna().all(axis=None)
    assert frame.loc[frame["state"] == "completed", ["value", "best_epoch", "seconds"]].notna().all(axis=None)
    assert frame["failure"].notna().sum() == (frame["state"] == "failed").sum()
    assert frame.loc[frame["state"] == "running", "seconds"].isna().all()


def test_an_own_heads_parameter_takes_no_results_place(tmp_path):
    own = OwnHeadRecord(function="own.py:build")
    made = MadeStudy(tmp_path / "study", make_config(head="own.py:build", engine="solo", own_head=own, space={}))
    params = {"value": 5, "width": 8, "epochs": 3, "param.epochs": 2, "features": 1}
    notes = TrialNotes.as_attributes(ordinal=1, own=OwnSpec("own.py:build", params))
    told = {"epochs": 4, "best_epoch": 2, "validation_loss": 0.5, "validation_accuracy": 0.5, "parameters": 10}
    distributions = {name: IntDistribution(1, 9) for name in params}
    made.opened.study.add_trial(
        create_trial(params=params, distributions=distributions, value=0.5, user_attrs=notes | told)
    )
    row = trials_frame(read_record(made.close())).to_dict("records")[-1]
    assert (row["value"], row["epochs"]) == (0.5, 4)
    assert (row["width"], row["param.features"]) == (8, 1)
    assert (row["param.value"], row["param.epochs"], row["param.param.epochs"]) == (5, 2, 3)


def test_of_a_study_without_trials_it_is_empty_with_its_columns(tmp_path):
    made = MadeStudy(tmp_path / "study", make_config(trials=1))
    made.train(0)
    made.close()
    record = read_record(made.folder)
    waiting = trials_frame(record)
    assert len(waiting) == len(record.trials)
    assert "conv_width" in waiting.columns
