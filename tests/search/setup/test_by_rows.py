"""What is left to the rows: decided as they ask for, said with the reason, and not where somebody has said it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, build_header, build_store, fill_store
from hypothesis import given
from hypothesis import strategies as some
from made_data import made_data
from made_study import SPACE, make_config

from features.runtime.errors import InputError
from search.setup import by_rows
from search.setup.by_rows import DecidedByRows, decide_by_rows, folds_for, steps_for
from search.setup.config import StudyConfig
from search.setup.left_open import FOLDS, ONE_PART_FROM
from search.setup.options import RunOptions
from search.setup.remarks import remarks
from search.setup.resolve import Resolved, resolve
from search.setup.space import read_study_file
from search.setup.stores import StudyData

STEPS_GIVEN = {"epochs": 4, "batch_size": 10}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows of 40 patients: 96 to train on, 24 of these to validate on."""
    return build_store(tmp_path_factory.mktemp("rows") / "store.h5", rows=120)


def loader(path: Path, **more: Any) -> Callable[[int], StudyData]:
    return lambda folds: StudyData.of_one(made_data(path, folds=folds, resident=False, **more))


def decide(path: Path, options: dict[str, Any], **more: Any) -> DecidedByRows:
    return decide_by_rows(RunOptions.given({"features": path} | STEPS_GIVEN | options), loader(path, **more))


@given(some.integers(1, 10**6))
def test_few_validation_rows_make_folds(rows: int):
    assert folds_for(rows) == (FOLDS if rows < ONE_PART_FROM else 0)


@pytest.mark.parametrize("options", [{}, {"folds": "auto"}])
def test_a_small_store_is_validated_on_in_folds_and_that_is_said(path, options):
    decided = decide(path, options)
    assert decided.options.folds == len(decided.data.first.folds) == FOLDS
    (line,) = decided.remarks
    assert line == (
        "--folds auto took 5: one validation part would have 24 rows, of which one is 4.2 points; --folds 0 takes it"
    )


def test_a_large_one_has_one_part_without_a_word(path, monkeypatch):
    monkeypatch.setattr(by_rows, "ONE_PART_FROM", 24)
    decided = decide(path, {})
    assert (decided.options.folds, decided.data.first.folds, decided.remarks) == (0, (), ())


@pytest.mark.parametrize("folds", [0, "0", 3])
def test_a_number_that_is_given_is_taken(path, folds):
    decided = decide(path, {"folds": folds})
    assert decided.options.folds == len(decided.data.first.folds) == int(folds)
    assert decided.remarks == ()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"features": None}, "the demonstration is to be quick; a search on a store like it takes 5 folds"),
        ({"head": "mine:build", "engine": "solo"}, "one at a time, heads would train 5 times as long with --folds 5"),
        ({"engine": "solo"}, "--engine solo takes no folds"),
    ],
)
def test_where_folds_cannot_be_or_cost_too_much_there_is_one_part_and_the_reason(path, options, why):
    decided = decide(path, options)
    assert decided.options.folds == 0
    part = "--folds auto took one validation part of 24 rows, of which one is 4.2 points"
    assert decided.remarks == (f"{part}: {why}",)


def test_patients_or_classes_that_do_not_suffice_for_folds_are_named(tmp_path):
    few = build_store(tmp_path / "few.h5", rows=12, classes=("A", "B"))
    decided = decide(few, {}, validation_share=0.5, test_share=0)
    assert decided.options.folds == 0
    assert "5 folds cannot be had: " in decided.remarks[0]
    assert "found 4 patients of 12 images" in decided.remarks[0]


def test_folds_are_taken_where_a_class_is_too_small_for_one_validation_part(tmp_path):
    rare = ("A",) * 120 + ("B",) * 5
    header = replace(
        build_header(rows=125, classes=("A", "B")),
        labels=tuple(int(name == "B") for name in rare),
        patients=tuple(f"p{row // 3 if row < 120 else row}" for row in range(125)),
    )
    store = fill_store(tmp_path / "rare.h5", header)
    shares = {"validation_share": 0.15, "test_share": 0}
    with pytest.raises(InputError, match="found B: 5 images of 5 patients") as refused:
        loader(store, **shares)(0)
    decided = decide(store, {}, **shares)
    assert len(decided.data.first.folds) == FOLDS
    assert decided.remarks == (f"--folds auto took 5: one validation part cannot be had: {refused.value}",)
    for options in ({"validation_fraction": 0.15}, {"engine": "solo"}, {"features": None}, {"folds": 0}):
        with pytest.raises(InputError, match="found B: 5 images of 5 patients"):
            decide(store, options, **shares)
    fewer = fill_store(tmp_path / "fewer.h5", replace(header, labels=(0,) * 122 + (1,) * 3))
    with pytest.raises(InputError, match="for --validation-fraction"):
        decide(fewer, {}, **shares)


def test_folds_that_cannot_be_ranked_on_are_not_taken(path, monkeypatch):
    def refuse(_: object) -> None:
        raise InputError("--objective", expected="rows of two classes", found="only A in fold 2")

    monkeypatch.setattr(by_rows, "require_area", refuse)
    assert decide(path, {}).options.folds == FOLDS
    decided = decide(path, {"objective": "auc"})
    assert (decided.options.folds, decided.data.first.folds) == (0, ())
    assert decided.remarks[0].endswith(
        "5 folds cannot be had: --objective: expected rows of two classes, found only A in fold 2"
    )


def test_rows_that_somebody_chose_to_validate_on_are_kept(path, tmp_path):
    assert decide(path, {"validation_fraction": 0.2}).data.first.folds == ()
    header = replace(build_header(rows=72), parts=("train",) * 48 + ("validation",) * 12 + ("test",) * 12)
    with_parts = fill_store(tmp_path / "parts.h5", header)
    given_part = decide(with_parts, {})
    said = (
        "validation as given has 12 rows, of which one is 8.3 points; --folds 5 trains on them, too, and judges on all"
    )
    assert (given_part.data.first.folds, given_part.remarks) == ((), (said,))
    assert sorted(np.concatenate(decide(with_parts, {"folds": 5}).data.first.folds)) == list(range(60))
    assert len(decide(with_parts, {"ignore_parts": True}, ignore_parts=True).data.first.folds) == FOLDS
    only_test = fill_store(tmp_path / "test.h5", replace(header, parts=("train",) * 60 + ("test",) * 12))
    assert len(decide(only_test, {}).data.first.folds) == FOLDS
    others = build_header(rows=24)
    other = fill_store(tmp_path / "other.h5", replace(others, patients=tuple(f"o{name}" for name in others.patients)))
    assert decide(path, {"validation": other}, validation=other).remarks == ()


@given(
    rows=some.integers(1, 10**6),
    folds=some.sampled_from([0, 2, 3, 5, 10]),
    batch_size=some.none() | some.integers(1, 10**4),
    epochs=some.none() | some.integers(1, 500),
)
def test_steps_follow_from_the_rows(rows: int, folds: int, batch_size: int | None, epochs: int | None):
    steps = steps_for(rows, folds, batch_size=batch_size, epochs=epochs)
    trained = rows * (folds - 1) / folds if folds else rows
    assert batch_size in (None, steps.batch_size)
    assert epochs in (None, steps.epochs)
    assert steps.an_epoch * steps.batch_size >= trained  # all rows have their turn
    if batch_size is None:
        assert 32 <= steps.batch_size <= 100
        assert steps.batch_size % 4 == 0
        assert steps.an_epoch >= min(20, trained / 32)
    if epochs is None:
        assert 50 <= steps.epochs <= 100
        assert steps.an_epoch * steps.epochs >= 1000 or steps.epochs == 100
        assert steps.epochs == 50 or steps.an_epoch * (steps.epochs - 1) < 1000  # no more than that takes
    fewer = steps_for(max(1, rows // 2), folds, batch_size=batch_size, epochs=epochs)
    assert (fewer.batch_size, -fewer.epochs) <= (steps.batch_size, -steps.epochs)


@pytest.mark.parametrize(
    ("rows", "folds", "expected"),
    [
        (83_484, 0, (100, 50, 835)),  # OCT2017's, as in the article
        (2_000, 0, (100, 50, 20)),
        (1_000, 0, (48, 50, 21)),
        (559, 5, (32, 63, 16)),
        (466, 0, (32, 67, 15)),
        (60, 5, (32, 100, 4)),
        (1, 0, (32, 100, 1)),
    ],
)
def test_small_stores_have_small_batches_and_more_epochs(rows, folds, expected):
    assert astuple(steps_for(rows, folds)) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"batch_size": None, "epochs": None},
            "96 rows to train on, a head 4 in 5 of them: at most 32 in a batch and 100 epochs, for 400 steps,"
            " 4 an epoch; --batch-size and --epochs say otherwise",
        ),
        (
            {"batch_size": None, "epochs": 7, "folds": 0},
            "72 rows to train on: at most 32 in a batch, for 21 steps, 3 an epoch; --batch-size says otherwise",
        ),
        (
            {"batch_size": 12, "epochs": None, "folds": 0},
            "72 rows to train on: 100 epochs, for 600 steps, 6 an epoch; --epochs says otherwise",
        ),
    ],
)
def test_what_was_left_open_of_the_steps_is_said(path, options, said):
    decided = decide(path, options)
    assert decided.remarks[-1] == said
    assert "None" not in f"{decided.options.batch_size} {decided.options.epochs}"


def test_the_default_study_file_leaves_steps_to_the_rows_and_others_keep_theirs():
    steps = {}
    for name in ("heads", "quick", "article"):
        run = read_study_file(ROOT / "studies" / f"{name}.toml").run
        steps[name] = (run.get("batch_size"), run.get("epochs"))
    assert steps == {"heads": (None, None), "quick": (50, 12), "article": (100, 50)}


def test_only_a_number_or_the_word_is_taken():
    assert RunOptions.given({"folds": "auto"}).folds is None
    assert RunOptions.given({"folds": "7"}).folds == 7
    for wrong, found in (("few", "a number, or auto, found few"), ("-1", "a number, or auto, found -1"), (-1, "-1")):
        with pytest.raises(InputError, match=rf"--folds: expected .*{found}"):
            RunOptions.given({"folds": wrong})


def test_a_study_that_goes_on_keeps_what_was_decided_and_says_it_again(path, tmp_path):
    decided = decide(path, {"batch_size": None, "epochs": None})
    told = Resolved(tmp_path, None, "made", SPACE, decided.options, decided.remarks)
    told.config(decided.data, "tensorflow").write(tmp_path)
    with pytest.raises(InputError, match=r"study\.json: folds: expected 5, found 0"):
        resolve(RunOptions.given({"out": tmp_path, "resume": True, "folds": 0}))
    again = resolve(RunOptions.given({"out": tmp_path, "resume": True, "folds": "auto"}))
    assert (again.options.folds, again.options.batch_size, again.options.epochs) == (FOLDS, 32, 100)
    resumed = decide_by_rows(again.options, loader(path))
    assert resumed.remarks == ()
    config = replace(again, decided=resumed.remarks).config(resumed.data, "tensorflow")
    assert config == StudyConfig.read(tmp_path)
    assert len(decided.remarks) == 2
    assert {*decided.remarks} <= {*remarks(config, SPACE, resumed.data)}


def test_studies_that_are_older_have_nothing_that_was_decided(tmp_path):
    make_config().write(tmp_path)
    told = json.loads((tmp_path / "study.json").read_text())
    assert told.pop("decided") == []
    (tmp_path / "study.json").write_text(json.dumps(told))
    assert StudyConfig.read(tmp_path).decided == ()
