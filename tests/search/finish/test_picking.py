"""Finalists that are good together: picked by how probable heads found the true classes, beside the best by value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_study import MadeStudy, make_config

from features.runtime.errors import InputError
from heads.metrics.scoring import EpochRecord, Score
from search.finish.likelihoods import FOLDER, Likelihoods
from search.finish.picking import pick_finalists
from search.finish.repeat_plan import describe_plan, plan_repeats
from search.trials.ask_tell import Asked
from search.trials.ranking import is_article, ranking

LABELS = np.arange(40, dtype=np.int32) % 2
SCORE = Score(0.1, 0.9)


def wrong_on(*rows: int) -> np.ndarray:
    """Surely right but on some rows."""
    right = np.full(len(LABELS), 0.9, np.float32)
    right[list(rows)] = 0.2
    made = np.stack([1 - right, right], axis=1)
    return np.where(LABELS[:, None] == 1, made, made[:, ::-1])


class Picking:
    """A study in a folder, and what its heads make of 40 rows."""

    def __init__(self, folder: Path) -> None:
        self.made = MadeStudy(folder, make_config(trials=100))
        self.study = self.made.opened.study
        self.likelihoods = Likelihoods(folder / FOLDER, LABELS, balanced=False, in_record=False)
        self.asked: list[Asked] = []

    def trial(self, value: float, made: np.ndarray | None) -> int:
        asked = self.made.book.ask()
        if made is not None:
            self.likelihoods.offer(asked, [], SCORE, [made[:25], made[25:]])
        self.made.book.complete(asked, EpochRecord(1, 0.1, Score(1 - value, value), 1e-3), epochs=1, parameters=1)
        self.asked.append(asked)
        return asked.number

    def numbers(self, count: int) -> list[int]:
        return [trial.number for trial in pick_finalists(self.study, count, self.likelihoods).trials]


@pytest.fixture
def picking(tmp_path):
    made = Picking(tmp_path / "study")
    yield made
    made.made.close()


def test_who_errs_elsewhere_is_picked_before_a_neighbour_of_the_best(picking):
    article = picking.trial(0.5, wrong_on(*range(20)))
    best = picking.trial(0.95, wrong_on(0, 1))
    neighbours = [picking.trial(0.94, wrong_on(0, 1, 2)) for _ in range(3)]
    other = picking.trial(0.90, wrong_on(5, 6, 7, 8))
    assert picking.numbers(2) == [best, other, article]
    assert picking.numbers(4) == [best, neighbours[0], other, *picking.numbers(4)[3:]]
    assert pick_finalists(picking.study, 2, picking.likelihoods).added == (other,)
    assert picking.numbers(1) == [best, article]  # half of one is the best by itself
    by_value = pick_finalists(picking.study, 2, None)
    assert [trial.number for trial in by_value.trials] == [best, neighbours[0], article]
    assert by_value.added == ()


def test_who_is_far_too_sure_is_judged_by_what_it_would_say_if_calibrated(picking):
    """Without it the unsure one would be preferred, though it errs where the best does, and on more rows."""
    picking.trial(0.5, wrong_on(*range(20)))
    best = picking.trial(0.95, wrong_on(0, 1, 2, 3))
    sure = wrong_on(5, 6, 7, 8)
    sure = np.where(sure > 0.5, 1 - 1e-6, 1e-6).astype(np.float32)
    picking.trial(0.90, wrong_on(0, 1, 2, 3, 4))
    other = picking.trial(0.89, sure)
    assert picking.numbers(2)[:2] == [best, other]


def test_the_articles_head_is_picked_by_value_only(picking):
    article = picking.trial(0.5, wrong_on())
    best = picking.trial(0.95, wrong_on(0, 1))
    second = picking.trial(0.94, wrong_on(0, 1, 2))
    assert picking.numbers(2) == [best, second, article]
    assert [is_article(trial) for trial in ranking(picking.study)] == [False, False, True]


def test_where_little_is_known_the_best_by_value_are_picked(picking):
    """As in a study that an earlier version began."""
    article = picking.trial(0.5, wrong_on())
    first, second, third = (picking.trial(value, None) for value in (0.95, 0.94, 0.93))
    known = picking.trial(0.92, wrong_on(3))
    assert picking.numbers(3) == [first, second, third, article]
    assert picking.numbers(4) == [first, second, third, known, article]


def test_of_those_that_are_known_the_best_is_picked_and_others_by_value(picking):
    article = picking.trial(0.5, wrong_on())
    best = picking.trial(0.95, wrong_on(0, 1))
    unknown = picking.trial(0.94, None)
    known = picking.trial(0.90, wrong_on(7))
    assert picking.numbers(2) == [best, known, article]
    assert picking.numbers(3) == [best, unknown, known, article]


def test_damage_is_said_in_one_line(picking):
    picking.trial(0.5, wrong_on())
    asked = picking.asked[picking.trial(0.95, wrong_on(0, 1))]
    picking.trial(0.94, wrong_on(5))
    path = picking.made.folder / FOLDER / f"{asked.ordinal}.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(
        InputError, match=rf"{path.name}: expected probabilities of the validation rows' classes"
    ) as told:
        picking.numbers(2)
    assert "\n" not in str(told.value)


def test_with_balanced_accuracy_each_class_counts_alike(tmp_path):
    labels = np.array([0] * 9 + [1], np.int32)
    alike = Likelihoods(tmp_path / "a", labels, balanced=True, in_record=False)
    np.testing.assert_allclose(alike.weights, [10 / 18] * 9 + [5])
    assert alike.weights.mean() == pytest.approx(1)
    assert set(Likelihoods(tmp_path / "b", labels, balanced=False, in_record=False).weights) == {1.0}


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 2))
def test_how_sure_a_head_is_changes_nothing(tmp_path_factory, seed, sureness):
    """What is kept of a head is what is kept of it with another temperature."""
    made = np.random.default_rng(seed).dirichlet([4, 4], len(LABELS)).astype(np.float64)
    made = (made + 0.2 * np.eye(2)[LABELS]) / 1.2
    other = made**sureness
    other /= other.sum(axis=1, keepdims=True)
    study = MadeStudy(tmp_path_factory.mktemp("sure") / "study", make_config(trials=100))
    kept = Likelihoods(study.folder / FOLDER, LABELS, balanced=False, in_record=False)
    for one in (made, other):
        asked = study.book.ask()
        kept.offer(asked, [], SCORE, [one.astype(np.float32)])
        study.book.complete(asked, EpochRecord(1, 0.1, SCORE, 1e-3), epochs=1, parameters=1)
    found = kept.read(ranking(study.opened.study))
    study.close()
    np.testing.assert_allclose(found[0], found[1], atol=5e-3)


def test_of_many_rows_evenly_spaced_ones_are_calibrated_by(picking, monkeypatch):
    whole = picking.trial(0.9, wrong_on(0, 20))
    monkeypatch.setattr("search.finish.likelihoods._AT_ONCE", 32)  # 80 probabilities: of each third row
    parts = picking.trial(0.9, wrong_on(0, 20))
    found = picking.likelihoods.read(ranking(picking.study))
    assert found[parts].shape == (40,)
    assert np.argsort(found[parts], stable=True).tolist() == np.argsort(found[whole], stable=True).tolist()


def test_the_plan_tells_who_was_picked_for_the_average(picking):
    picking.trial(0.5, wrong_on(*range(20)))
    picking.trial(0.95, wrong_on(0, 1))
    picking.trial(0.94, wrong_on(0, 1, 2))
    other = picking.trial(0.90, wrong_on(5, 6, 7, 8))
    config = picking.made.config.model_copy(update={"finalists": 2, "repeats": 2})
    plan = plan_repeats(picking.study, config, picking.likelihoods)
    assert plan.added == plan.record.added == (other,)
    assert "3 heads (1 of them for what the average of all gains by them), " in describe_plan(plan.record)
    assert "gains" not in describe_plan(replace(plan.record, added=()))
