"""How many channels ``auto`` takes, and the cross-validation that it decides by."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT, build_store
from made_bank import use_made_banks

from features.compression.directions import principal_directions
from features.rows.split import fold_rows
from features.runtime.errors import InputError
from features.store.projected import ProjectedStore
from features.store.reader import FeatureStore
from heads.bank.engine import Engine
from heads.metrics.intervals import paired_difference
from heads.metrics.scoring import Scores
from heads.model.spec import HeadSpec
from search.setup import channels, cross_validation
from search.setup.channels import MeasuredChannels, channels_in_words, choose_channels, drawn_heads
from search.setup.cross_validation import cross_validate
from search.setup.space import read_study_file

SPACE = read_study_file(ROOT / "studies" / "heads.toml").space


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return FeatureStore(build_store(tmp_path_factory.mktemp("store") / "s.h5", rows=120, shape=(2, 2, 12)))


@pytest.fixture(scope="module")
def folds(store):
    return fold_rows(store.usable, store.labels, store.patients, folds=3, seed=0)


def chosen(store, monkeypatch, right: dict[int, int], candidates=(2, 4, 8, 12, 99)):
    """What is chosen where so many rows in a hundred are classified correctly with each number of channels."""
    asked = []

    def predicted(source, folds, heads, **told):
        shape = source.header.feature_shape
        asked.append((shape[2], isinstance(source, ProjectedStore), len(heads)))
        labels = source.labels[np.concatenate(folds)]
        called = np.where(np.arange(len(labels)) % 100 < right[shape[2]], labels, (labels + 1) % 4)
        return [np.eye(4)[called]] * len(heads)

    monkeypatch.setattr(cross_validation, "cross_validate", predicted)
    monkeypatch.setattr(channels, "CANDIDATES", candidates)
    directions = principal_directions(store, store.usable)
    found = choose_channels(directions, store, store.usable, SPACE, seed=3, batch_size=50)
    return *found, asked


def test_the_fewest_that_keep_the_accuracy_are_taken_and_no_more_are_tried(store, monkeypatch):
    number, measured, asked = chosen(store, monkeypatch, {12: 90, 2: 40, 4: 70, 8: 90})
    assert number == 8
    assert asked == [(12, False, 4), (2, True, 4), (4, True, 4), (8, True, 4)]
    assert [one.channels for one in measured] == [2, 4, 8, 12]
    assert [one.keeps for one in measured] == [False, False, True, True]
    assert [one.difference for one in measured] == pytest.approx(
        [measured[3].accuracy - one.accuracy for one in measured]
    )
    assert channels_in_words(measured).endswith(f"all 12: {measured[3].accuracy:.4f}")
    assert f"2: {measured[0].accuracy:.4f} (-{measured[0].difference:.4f} ± " in channels_in_words(measured)


def test_the_error_of_a_difference_has_patients_as_units(store, monkeypatch):
    """Of a patient's three rows all are classified correctly or none."""
    _, measured, _ = chosen(store, monkeypatch, {12: 100, 2: 66}, candidates=(2,))
    lost = np.where(np.arange(len(store.usable)) % 100 < 66, 0.0, 1.0)
    by_rows = paired_difference(lost, np.zeros(len(lost)), np.arange(len(lost)))[1]
    assert measured[0].error == pytest.approx(by_rows * 3**0.5, rel=0.05)


def test_better_than_all_is_kept_and_all_are_taken_where_none_keep(store, monkeypatch):
    assert chosen(store, monkeypatch, {12: 80, 2: 90})[0] == 2
    number, measured, _ = chosen(store, monkeypatch, {12: 90, 2: 40, 4: 40, 8: 40})
    assert (number, len(measured)) == (12, 4)
    assert chosen(store, monkeypatch, {12: 90}, candidates=(12, 99))[0] == 12


def test_too_few_patients_for_folds_are_said(tmp_path, store, monkeypatch):
    few = FeatureStore(build_store(tmp_path / "few.h5", rows=3, shape=(2, 2, 12)))
    directions = principal_directions(few, few.usable)
    with pytest.raises(InputError, match="--channels auto: expected rows for 2 folds"):
        choose_channels(directions, few, few.usable, SPACE, seed=0, batch_size=50)


def test_heads_are_drawn_by_the_seed():
    assert drawn_heads(SPACE, 3, seed=1) == drawn_heads(SPACE, 3, seed=1) != drawn_heads(SPACE, 3, seed=2)
    assert len(set(drawn_heads(SPACE, 3, seed=1))) == 3


@pytest.mark.slow
def test_rows_are_predicted_by_heads_that_have_not_seen_them(store, folds):
    specs = [HeadSpec(conv_width=16, learning_rate=1e-2), HeadSpec(conv_width=32, batch_norm=False, pooling="average")]
    heads = [(spec, seed) for spec in specs for seed in (1, 2)]
    told = {"epochs": 4, "batch_size": 40, "seed": 5}
    found = cross_validate(store, folds, heads, **told)
    labels = store.labels[np.concatenate(folds)]
    accuracies = [np.mean(one.argmax(axis=1) == labels) for one in found]
    assert min(accuracies[:2]) > 0.6
    assert not np.array_equal(found[0], found[1])
    for one in found:
        np.testing.assert_allclose(one.sum(axis=1), 1, atol=1e-4)
    again = cross_validate(store, folds, heads[:1], **told)
    np.testing.assert_allclose(again[0], found[0], atol=0.05)


def test_of_each_head_the_best_epoch_is_what_is_predicted_with(store, folds, monkeypatch):
    use_made_banks(monkeypatch)
    accuracies, kept = iter([0.4, 0.6, 0.5]), []

    def validate(engine):
        accuracy = np.full(engine.learning_rates.rates.shape, next(accuracies))
        return Scores(1 - accuracy, accuracy, accuracy)

    monkeypatch.setattr(Engine, "validate", validate)
    monkeypatch.setattr(Engine, "keep", lambda engine, improved: kept.append(int(improved.sum())))
    cross_validate(store, folds, [(HeadSpec(conv_width=16), 1)], epochs=3, batch_size=40, seed=5)
    assert kept == [3, 3, 0]  # a head for each of three folds


def test_as_much_as_the_error_is_no_loss_whatever_the_last_bit_says():
    error = 0.1
    lost = float(np.nextafter(error, 1))
    assert MeasuredChannels(channels=64, accuracy=0.9, difference=lost, error=error).keeps
    assert not MeasuredChannels(channels=64, accuracy=0.9, difference=1.001 * error, error=error).keeps
