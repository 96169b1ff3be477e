"""What a search decides without being asked: said in a line each, and nothing where there is nothing to say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import build_header, build_store, fill_store
from made_data import made_data
from made_study import SPACE, make_config

from features.compression.compression import compress_store
from features.compression.directions import default_training_rows
from features.store.reader import FeatureStore
from search.setup.data import SearchData
from search.setup.remarks import remarks
from search.setup.space import Space
from search.setup.stores import StudyData


def save(
    path: Path, *, views: tuple[str, ...] = ("identity",), labels: list[int] | None = None, skipped: int = 0
) -> Path:
    header = build_header(rows=120, views=views)
    if labels is not None:
        header = replace(header, labels=tuple(labels), patients=("",) * len(labels))
    return fill_store(path, header, skipped=range(skipped))


def said(data: SearchData, space: Space = SPACE, **options: object) -> list[str]:
    return list(remarks(make_config(**options), space, StudyData.of_one(data)))


def test_nothing_is_said_where_nothing_was_decided(tmp_path):
    assert said(made_data(save(tmp_path / "s.h5"))) == []


def test_rows_that_are_left_out_are_counted_by_store(tmp_path):
    store, other = save(tmp_path / "s.h5", skipped=3), save(tmp_path / "t.h5", labels=[0, 1, 2, 3] * 30, skipped=1)
    told = said(made_data(store, test=other))
    assert "s.h5: 3 of 120 images could not be decoded and are left out" in told
    assert "t.h5: 1 of 120 images could not be decoded and are left out" in told


def test_validation_rows_that_the_last_training_cannot_use_are_named(tmp_path):
    other = save(tmp_path / "v.h5", views=("identity", "flip"), labels=[0, 1, 2, 3] * 30)
    (told,) = [line for line in said(made_data(save(tmp_path / "s.h5"), validation=other)) if "views" in line]
    assert told.startswith("v.h5: its views (identity, flip)")


@pytest.mark.parametrize(
    ("options", "warned"),
    [({}, True), ({"objective": "balanced_accuracy"}, False), ({"class_weights": "balanced"}, False)],
)
def test_uneven_classes_are_told_to_who_ranks_by_accuracy(tmp_path, options, warned):
    data = made_data(save(tmp_path / "s.h5", labels=[0] * 75 + [1, 2, 3] * 15))
    lines = [line for line in said(data, **options) if "accuracy hardly sees" in line]
    assert len(lines) == warned
    assert all("training rows of CNV" in line and "--class-weights balanced" in line for line in lines)


def test_an_article_head_that_the_space_cannot_draw_is_told_with_its_parameters(tmp_path):
    store = made_data(save(tmp_path / "s.h5"))
    space = Space.from_dict({"conv_width": {"low": 16, "high": 32, "step": 16}, "activation": "gelu"}, "here")
    (told,) = said(store, space)
    assert "2 parameters: conv_width, activation" in told
    assert told.endswith("as trial 0; the record has the nearest values of the space for it")
    data = {"dropout": {"low": 0.1, "high": 0.7, "step": 0.3}, "activation": ["relu", "gelu"]}
    (told,) = said(store, Space.from_dict(data, "here"))  # a grid that steps over the article's value
    assert "1 parameter: dropout" in told
    (told,) = said(store, Space.from_dict({"activation": "gelu", "batch_norm": [True, False]}, "here"))
    assert told.endswith("as trial 0")


def test_parameters_that_no_head_of_the_space_uses_are_told_with_what_they_take(tmp_path):
    searched = {"dense_units": [32, 64], "dense_dropout": [0.0, 0.5], "momentum": [0.8, 0.9], "dropout": [0.1, 0.5]}
    lines = said(made_data(save(tmp_path / "s.h5")), Space.from_dict(searched, "here"))
    assert [line for line in lines if "no effect" in line] == [
        "dense_units, dense_dropout have no effect on any head of the space: that takes dense_layers above 0",
        "momentum has no effect on any head of the space: that takes optimizer sgd",
    ]


def test_a_study_without_a_test_says_what_it_will_not_say(tmp_path):
    assert said(made_data(save(tmp_path / "s.h5"), test_share=0.0)) == [
        "no rows are kept for the test: nothing will be said of new patients"
    ]


def test_test_rows_that_the_directions_of_a_compressed_store_have_seen_are_counted(tmp_path):
    compress_store(save(tmp_path / "s.h5"), tmp_path / "c.h5", channels=2)

    def told(seed: int) -> list[str]:
        data = made_data(tmp_path / "c.h5", share=0.15, seed=seed)
        return [line for line in said(data) if "its directions were made of" in line]

    assert told(0) == []
    (line,) = told(3)
    split = made_data(tmp_path / "c.h5", share=0.15, seed=3).test.rows
    seen = np.isin(split, default_training_rows(FeatureStore(tmp_path / "s.h5"))).sum()
    assert line.startswith(f"c.h5: {seen} of {len(split)} test rows")


def test_patients_of_given_stores_are_not_trained_on_nor_those_of_the_test_validated_on(tmp_path):
    validation, test = (build_store(tmp_path / name, rows=rows) for name, rows in (("v.h5", 24), ("t.h5", 12)))
    data = made_data(save(tmp_path / "s.h5"), validation=validation, test=test)
    parts = [set(feed.store.patients[feed.rows].tolist()) for feed in (data.train, data.validation, data.test)]
    assert list(map(len, parts)) == [32, 4, 4]
    assert len(set.union(*parts)) == 40
    assert data.remarks == (
        "v.h5: 12 validation rows left out: their patients are in another part",
        "s.h5: 24 training rows left out: their patients are in another part",
    )


def test_what_leaves_is_trained_on_both_stores_where_validation_has_its_own(tmp_path):
    store, other = build_store(tmp_path / "s.h5", rows=48), save(tmp_path / "v.h5", labels=[0, 1, 2, 3] * 30)
    data = made_data(store, validation=other, test_share=0.25)
    source, rows = data.all_but_test
    parts = (data.train, data.validation)
    assert source.labels[rows].tolist() == [label for part in parts for label in part.labels]
    assert np.array_equal(source.take(rows), np.concatenate([part.store.take(part.rows) for part in parts]))
    assert (data.parts_but_test, data.stores_but_test) == (
        ("train", "validation"),
        (data.store.fingerprint, data.validation.store.fingerprint),
    )
