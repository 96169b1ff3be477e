"""``search.run --head``: a study of heads that somebody's own function makes, from its options to what leaves it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from commands import invoke
from conftest import build_store
from tiny_study import STUDY, table

from features.rows.feed import Feed
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.files.head_file import read_head
from heads.files.own_file import read_own_metadata
from heads.metrics.scoring import predict_probabilities
from heads.model.spec import HeadSpec
from search import Study, open_study, run_study
from search.review.note import note_on
from search.trials.ask_tell import Book
from search.trials.notes import TrialNotes

pytestmark = pytest.mark.slow

SOURCE = """
import keras

@keras.saving.register_keras_serializable("own")
class Gain(keras.layers.Layer):
    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, values):
        return values * self.gain

def build(trial, feature_shape, classes):
    units = trial.suggest_int("units", 8, 32, step=8)
    kind = trial.suggest_categorical("kind", ["plain", "own", "broken"])
    trial.set_user_attr("store", [kind])  # a name that the study has a note of, too
    if kind == "broken":
        raise ValueError("as it happens")
    layers = [keras.Input(feature_shape), *([Gain()] if kind == "own" else []), keras.layers.Flatten()]
    layers += [keras.layers.Dense(units, "relu"), keras.layers.Dropout(trial.suggest_float("dropout", 0, 0.5))]
    model = keras.Sequential([*layers, keras.layers.Dense(classes, "softmax")])
    if kind == "own":
        rate = trial.suggest_float("rate", 0.01, 0.1, log=True)
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
"""
FEW = {"trials": 5, "epochs": 2, "finalists": 3, "repeats": 2, "progress": False, "sampler": "random", "pruner": "none"}
SEED = 5  # with which all three kinds of models come up


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A store, a function of one's own, and ``study``, a finished study of its heads."""
    folder = tmp_path_factory.mktemp("own")
    build_store(folder / "store.h5", rows=240, shape=(2, 2, 8))
    (folder / "tiny.toml").write_text(STUDY)
    (folder / "gains.py").write_text(SOURCE)
    search(folder, "study")
    return folder


def search(world: Path, out: str, **options) -> Study:
    head = f"{world / 'gains.py'}:build"
    return run_study(
        world / "store.h5", head=head, study=world / "tiny.toml", out=world / out, seed=SEED, **FEW | options
    )


def test_the_article_s_head_is_trial_0_and_the_others_are_the_function_s(world):
    study = open_study(world / "study")
    first, *others = study.record.trials
    assert TrialNotes.of(first).head == HeadSpec()
    assert (first.params, "own" in first.user_attrs) == ({}, False)
    for trial in others:
        own = TrialNotes.of(trial).head
        assert own.params == trial.params
        assert trial.user_attrs["own.store"] == [trial.params["kind"]]
        assert TrialNotes.of(trial).store == ""
        assert ("rate" in trial.params) == (trial.params["kind"] == "own")
    kinds = {trial.params["kind"]: trial for trial in others}
    assert kinds.keys() == {"plain", "own", "broken"}
    broken = kinds["broken"]
    assert broken.state.name == "FAIL"
    assert TrialNotes.of(broken).failure.startswith(
        "gains.py: build(trial, (2, 2, 8), 4): expected a keras.Model, found"
    )
    summary = study.summary
    assert (summary.trials, summary.engine, summary.bank) == (5, "solo", None)
    assert any("failed" in note and "as it happens" in note for note in summary.notes)
    recorded = json.loads((world / "study" / "study.json").read_text())
    assert recorded["own_head"]["file"] == "gains.py"


def test_finalists_are_repeated_and_trained_on_all_rows_and_tested_once(world):
    summary = open_study(world / "study").summary
    assert {one.is_article for one in summary.finalists.heads} == {True, False}
    assert all(len(one.values) == 2 and None not in one.values for one in summary.finalists.heads)
    assert summary.finalists.heads[0].values[0] != summary.finalists.heads[0].values[1] or summary.best.value == 1
    assert summary.refit.rows == summary.split.counts["train"] + summary.split.counts["validation"]
    assert summary.test.uses == 1
    assert summary.calibration.temperature > 0


def test_what_is_kept_scores_what_was_recorded(world):
    study = open_study(world / "study")
    store = FeatureStore(world / "store.h5")
    rows = json.loads((world / "study" / "split.json").read_text())["rows"]["validation"]
    feed = Feed(store, np.asarray(rows), memory_bytes=2**20)
    kept = sorted((world / "study" / "heads").glob("trial-*"))
    assert {path.suffix for path in kept} == {".hdf5", ".keras"}
    for path in kept:
        trial = study.record.trials[int(path.stem.partition("-")[2])]
        own = path.suffix == ".keras"
        model = keras.saving.load_model(path, compile=False) if own else read_head(path).model
        metadata = read_own_metadata(path) if own else read_head(path).metadata
        accuracy = (predict_probabilities(model, feed).argmax(axis=1) == feed.labels).mean()
        assert accuracy == pytest.approx(trial.value) == metadata.value
        assert (metadata.own or {}).get("params", {}) == trial.params


def test_both_kinds_leave_the_study(world):
    study = open_study(world / "study")
    by_kind = {trial.params.get("kind"): trial.number for trial in study.record.ranked}
    plain = study.export(world / "plain.hdf5", trial=by_kind["plain"])
    assert read_head(plain).metadata.own["params"]["kind"] == "plain"
    copied = study.export(world / "own.keras", trial=by_kind["own"])
    assert keras.saving.load_model(copied, compile=False).output_shape == (None, 4)
    for out, says in (("own.hdf5", r"OUT: expected a name that ends in \.keras, found own\.hdf5; .*Gain"),):
        with pytest.raises(InputError, match=says):
            study.export(world / out, trial=by_kind["own"])
        assert not (world / out).exists()
    with pytest.raises(InputError, match=r"--with-backbone: expected a head of plain layers, found .*Gain"):
        study.export(world / "whole.keras", trial=by_kind["own"], with_backbone=True)


def test_an_average_of_heads_that_cannot_be_joined_is_not_recommended(world):
    study = open_study(world / "study")
    summary = study.summary
    assert summary.recommendation.of("ensemble") is None
    assert any(re.search(r"no candidate .* refit-\d+\.keras has .*Gain", note) for note in summary.notes)
    with pytest.raises(InputError, match=r"--which: expected heads that one file can hold, found refit-\d+\.keras has"):
        study.export(world / "average.keras", which="ensemble")


def test_report_table_and_note_know_them(world):
    study = open_study(world / "study")
    report = (world / "study" / "report.html").read_text(encoding="utf-8")
    assert "gains.py:build: units" in report
    assert " --head " in report
    trials = study.trials()
    assert {"units", "kind", "dropout", "rate", "failure"} <= set(trials.columns)
    assert "conv_width" not in trials.columns
    assert "Searched: " in note_on(study.record)
    assert {"parameter-units", "parameters-together"} <= set(study.figures())


def test_a_study_that_is_stopped_again_and_again_comes_to_the_same(world, monkeypatch):
    reports, report = [0], Book.report

    def counted(self, asked, record):
        report(self, asked, record)
        reports[0] += 1
        if reports[0] % 6 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(Book, "report", counted)
    stops = 0
    while True:
        try:
            study = search(world, "stopped", resume=stops > 0)
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops >= 2
    whole = open_study(world / "study")
    assert table(study.folder) == table(whole.folder)
    mine, theirs = study.summary, whole.summary
    assert mine.interrupted >= 1
    assert [one.values for one in mine.finalists.heads] == [one.values for one in theirs.finalists.heads]
    assert (mine.test.heads, mine.test.accuracy) == (theirs.test.heads, theirs.test.accuracy)


def test_folds_and_a_function_that_is_given_and_a_changed_source(world, capsys):
    sys.path.insert(0, str(world))
    try:
        import gains  # the file that is read again below
    finally:
        sys.path.remove(str(world))
    options = {**FEW, "trials": 2, "finalists": 0, "folds": 2, "seed": SEED, "out": world / "folds"}
    study = run_study(world / "store.h5", head=gains.build, **options)
    assert study.config.head == "gains:build"
    record = study.record.trials[1]
    assert record.params["kind"] == "own"
    assert record.state.name == "COMPLETE"
    assert {path.name for path in (world / "folds" / "heads").iterdir()} == {"refit-0.hdf5", "refit-1.keras"}
    (world / "gains.py").write_text(SOURCE + "# changed\n")
    run_study(head=gains.build, **options | {"resume": True, "trials": 3, "progress": True})
    assert "gains.py has changed since the study was begun" in capsys.readouterr().err
    (world / "gains.py").write_text(SOURCE)


@pytest.mark.parametrize("folds", [0, 2])
def test_a_head_that_keras_cannot_save_is_a_failed_trial(world, folds):
    class Scaled(keras.layers.Layer):
        def __init__(self, function):  # without a get_config that says what it was made with
            super().__init__()
            self.function = function

        def call(self, values):
            return self.function(values)

    def build(trial, feature_shape, classes):
        kind = trial.suggest_categorical("kind", ["plain", "unsaved"])
        own = [Scaled(lambda values: 2 * values)] if kind == "unsaved" else []
        flat = [keras.Input(feature_shape), *own, keras.layers.Flatten()]
        return keras.Sequential([*flat, keras.layers.Dense(classes, "softmax")])

    out = world / f"unsaved-{folds}"
    options = FEW | {"trials": 4, "epochs": 1, "finalists": 0, "folds": folds, "seed": SEED}
    study = run_study(world / "store.h5", head=build, out=out, **options)
    states = {(trial.params["kind"], trial.state.name) for trial in study.record.trials[1:]}
    assert states == {("plain", "COMPLETE"), ("unsaved", "FAIL")}
    expected = r"build\(trial, \(2, 2, 8\), 4\): expected a model that Keras can save, found NotImplementedError"
    (reason,) = study.summary.failures_by_reason
    assert re.search(expected, reason)
    failed = {f"trial-{number}" for number in study.summary.failures}
    assert not failed & {path.stem for path in (out / "heads").iterdir()}


def test_the_command_says_in_a_line_what_is_wrong(world):
    head = f"{world / 'gains.py'}:no_such"
    said = invoke("search.run", "--features", world / "store.h5", "--head", head, "--out", world / "none")
    assert said.status == 2
    assert "gains.py: no_such: expected a function, found no such function; there is build" in said.err
    assert not (world / "none").exists()


def test_a_function_that_is_refused_leaves_nothing(world):
    with pytest.raises(InputError, match="expected a keras"):
        run_study(world / "store.h5", head=lambda *_: None, study=world / "tiny.toml", out=world / "none", **FEW)
    assert not (world / "none").exists()
