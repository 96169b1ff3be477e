"""Training on all rows: as many epochs and the rates that were found, from a seed of the trial's own."""

from __future__ import annotations

import numpy as np
import pytest
from ended_study import end_study

from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from search.finish.refit import ToRefit, refit
from search.setup.data import SearchData
from search.setup.own_head import OwnFunction, OwnHead, OwnHeadRecord

PLAIN = HeadSpec(conv_width=16, batch_norm=False, dropout=0.0, pooling="average")
RATE = 3e-3


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    return end_study(tmp_path_factory.mktemp("refit"))


@pytest.fixture(scope="module")
def trained(ended):
    """One bank for all: a trial's number says what it is."""
    to_refit = [
        ToRefit(1, 5, PLAIN, 1, [RATE]),
        ToRefit(2, 5, PLAIN, 3, [RATE, 0.0]),  # the last rate holds where there are more epochs than rates
        ToRefit(3, 5, PLAIN, 2, [RATE, RATE]),
        ToRefit(4, 6, PLAIN, 1, [RATE]),
        ToRefit(5, 7, PLAIN, 2, [1e30, 1e30]),
        ToRefit(6, 8, HeadSpec(conv_width=32, pooling="max"), 2, [RATE]),
        ToRefit(7, 5, PLAIN, 1, [RATE], copies=2),
    ]
    return refit(to_refit, ended.config, ended.study_data)


@pytest.fixture(scope="module")
def made(trained):
    return trained[0]


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.weights, other.weights, strict=True))


def test_epochs_and_rates_are_followed(made):
    assert same(made[1], made[2])  # two more epochs at a rate of 0 change nothing
    assert not same(made[1], made[3])
    assert [made[number].epochs for number in (1, 2, 3)] == [1, 3, 2]


def test_the_ordinal_decides_the_seed(made):
    assert not same(made[1], made[4])


def test_copies_are_from_other_seeds_and_the_first_is_the_head_alone(made):
    (copy,) = made[7].more
    assert same(made[7], made[1])
    assert not np.array_equal(copy[0], made[7].weights[0])


def test_one_that_diverged_is_left_out_and_named(trained):
    made, lost = trained
    assert made.keys() == {1, 2, 3, 4, 6, 7}
    assert lost == {5: "it diverged"}


def test_what_a_function_of_ones_own_stumbles_over_is_the_reason(ended):
    def build(trial, feature_shape, classes):
        raise FileNotFoundError("no settings.json")

    function = OwnFunction(build, OwnHeadRecord(function="mine:build"))
    own = OwnHead.for_data(function, ended.data)
    to_refit = [ToRefit(1, 5, OwnSpec("mine:build", {}), 1, [RATE])]
    made, lost = refit(to_refit, ended.config, ended.study_data, own)
    assert made == {}
    assert lost[1].endswith("expected a keras.Model, found FileNotFoundError (no settings.json)")


def test_it_trains_on_all_rows_but_those_of_the_test(made, ended):
    data = ended.data
    expected = len(data.train.rows) + len(data.validation.rows)
    assert {one.rows for one in made.values()} == {expected}
    assert expected + len(data.test.rows) == 96


def test_each_head_has_its_own_shapes(made):
    assert made[1].weights[0].shape[-1] == 16
    assert made[6].weights[0].shape[-1] == 32
    assert made[6].head == HeadSpec(conv_width=32, pooling="max")


def test_rows_of_rare_classes_count_more_and_are_rare_among_all_that_are_trained_on(ended, made, monkeypatch):
    """A validation part that is given may have another balance than the rows of the search."""
    counted = []

    def weights(_, kind, labels):
        counted.append((kind, labels.tolist()))
        return [9.0, 1.0, 1.0, 1.0]

    monkeypatch.setattr(SearchData, "class_weights", weights)
    config = ended.config.model_copy(update={"class_weights": "balanced"})
    found, _ = refit([ToRefit(1, 5, PLAIN, 1, [RATE])], config, ended.study_data)
    assert not same(found[1], made[1])
    source, rows = ended.data.all_but_test
    assert counted == [("balanced", source.labels[rows].tolist())]
