"""Scores of many heads at once against scikit-learn's, one by one; scoring heeds interrupts."""

import signal
import tracemalloc
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, recall_score, roc_auc_score

from heads.metrics.scoring import (
    OBJECTIVES,
    BestEpochs,
    EpochRecord,
    Score,
    Scores,
    best_of,
    is_share,
    mean_probabilities,
    predict_probabilities,
    ranking_score,
    score,
    score_all,
    scores_rows_by_logarithms,
)

CLASSES = 3


def drawn(seed: int, rows: int, heads: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    # rounded, so that there are ties
    raw = np.round(generator.uniform(0.05, 1, (heads, rows, CLASSES)), 1)
    return (raw / raw.sum(axis=2, keepdims=True)).astype(np.float32), generator.integers(0, CLASSES, rows)


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 40), objective=st.sampled_from(OBJECTIVES))
def test_many_heads_score_as_scikit_learn_scores_each(seed, rows, objective):
    probabilities, labels = drawn(seed, rows)
    found = score_all(probabilities, labels, objective)
    for head, mine in enumerate(probabilities):
        assert found.loss[head] == pytest.approx(log_loss(labels, mine, labels=range(CLASSES)), rel=1e-5)
        assert found.accuracy[head] == np.mean(mine.argmax(1) == labels)
        expected = {
            "accuracy": found.accuracy[head],
            "balanced_accuracy": mean_recall(labels, mine),
            "auc": area(labels, mine),
            "loss": -found.loss[head],
        }[objective]
        assert found.ranking_score[head] == pytest.approx(expected, nan_ok=True)
        one = score(mine, labels, objective)
        assert (one.loss, one.accuracy) == (found.loss[head], found.accuracy[head])


def mean_recall(labels, probabilities) -> float:
    there = np.unique(labels)
    return float(recall_score(labels, probabilities.argmax(1), labels=there, average="macro"))


def area(labels, probabilities) -> float:
    own = [labels == label for label in range(CLASSES) if 0 < np.sum(labels == label) < len(labels)]
    numbers = [label for label in range(CLASSES) if 0 < np.sum(labels == label) < len(labels)]
    areas = [roc_auc_score(mine, probabilities[:, label]) for mine, label in zip(own, numbers, strict=True)]
    return float(np.mean(areas)) if areas else np.nan


few_numbers = st.sampled_from([0.0, 0.25, 0.5, float("nan")])


@given(epochs=st.lists(st.tuples(few_numbers, few_numbers), min_size=1, max_size=8), last_counts=st.booleans())
def test_the_best_epochs_of_many_heads_are_those_of_each(epochs, last_counts):
    """Beside a head there is a place without one, and one whose last epoch counts."""
    many = BestEpochs(np.array([last_counts, False, True]))
    best = None
    for number, (loss, accuracy) in enumerate(epochs, 1):
        record = EpochRecord(number, 0.0, Score(loss, accuracy, accuracy), 1e-3)
        replaced = many.update(Scores(*(np.full(3, value) for value in (loss, accuracy, accuracy))), np.arange(3) != 1)
        replaces = record.replaces(best, last_counts=last_counts)
        assert replaced.tolist() == [replaces, False, True]
        best = record if replaces else best


def test_of_equal_scores_the_lower_loss_and_of_equals_the_first_epoch_is_kept():
    first, lower = (EpochRecord(number, 0.0, Score(loss, 0.9, 0.9), 1e-3) for number, loss in ((1, 0.4), (2, 0.3)))
    assert first.replaces(None, last_counts=False)
    assert lower.replaces(first, last_counts=False)
    assert not first.replaces(lower, last_counts=False)
    assert not lower.replaces(lower, last_counts=False)
    assert first.replaces(lower, last_counts=True)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_head_with_nan_has_no_score_and_takes_none_from_the_others(objective):
    probabilities, labels = drawn(1, 12)
    broken = probabilities.copy()
    broken[1, 3, 2] = np.nan
    before, after = score_all(probabilities, labels, objective), score_all(broken, labels, objective)
    for mine, theirs in zip(before, after, strict=True):
        assert np.isnan(theirs[1])
        np.testing.assert_array_equal(np.delete(mine, 1), np.delete(theirs, 1))
    assert not score(broken[1], labels, objective).finite
    assert not score(broken[1, :0], labels[:0], objective).finite


def test_rows_of_one_class_have_no_area_to_be_ranked_by():
    probabilities, _ = drawn(1, 12)
    alone = score(probabilities[0], np.zeros(12, int), "auc")
    assert np.isnan(alone.ranking_score)
    assert not alone.finite
    assert np.isnan(Score.mean([alone, Score(0.5, 0.5, 0.5)]).ranking_score)


def test_better_is_by_ranking_score_then_loss():
    worse, better = Score(0.4, 0.9, -0.4), Score(0.3, 0.8, -0.3)
    assert better.better_than(worse)
    assert not worse.better_than(better)
    assert Score(0.3, 0.9, 0.5).better_than(Score(0.4, 0.9, 0.5))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_of_a_loss_less_is_better_and_of_all_others_more(objective):
    values = [0.5, 0.2, 0.9]
    assert best_of(values, objective) == (0.2 if objective == "loss" else 0.9)
    assert max(ranking_score(value, objective) for value in values) == ranking_score(
        best_of(values, objective), objective
    )


def test_what_is_no_share_of_rows_scores_them_by_logarithms():
    assert [name for name in OBJECTIVES if is_share(name)] == ["accuracy", "balanced_accuracy"]
    assert [name for name in OBJECTIVES if scores_rows_by_logarithms(name)] == ["auc", "loss"]


def test_the_mean_over_folds():
    mean = Score.mean([Score(0.25, 0.75, 0.5), Score(0.75, 0.25, 0.0)])
    assert mean == Score(0.5, 0.5, 0.25)


def test_an_interrupt_that_got_lost_in_the_head_is_heeded_after_the_batch():
    seen = []

    def head(features, training):
        seen.append(len(features))
        if len(seen) == 2:
            with suppress(KeyboardInterrupt):  # as TensorFlow's C++ side does while it imports something
                signal.raise_signal(signal.SIGINT)
        return np.full((len(features), CLASSES), 1 / CLASSES, np.float32)

    batches = [np.zeros((4, 2), np.float32)] * 3
    feed = SimpleNamespace(rows=np.arange(12), views=2, score_batches=lambda size, view: batches)
    with pytest.raises(KeyboardInterrupt):
        predict_probabilities(head, feed, batch_size=4)
    assert seen == [4, 4]
    assert predict_probabilities(head, feed, batch_size=4).shape == (12, CLASSES)


@pytest.mark.parametrize("views", [1, 3, 6])
def test_views_are_averaged_in_the_memory_of_what_is_returned(views):
    """100,000 rows of a thousand classes took eleven times that."""
    rows, classes = 5000, 100
    feed = SimpleNamespace(
        rows=np.arange(rows),
        views=views,
        score_batches=lambda size, view: (
            np.stack([np.arange(start, min(start + size, rows)), [view] * (min(start + size, rows) - start)], axis=1)
            for start in range(0, rows, size)
        ),
    )
    every = np.random.default_rng(0).random((views, rows, classes), np.float32)
    head = lambda features, training: every[features[:, 1], features[:, 0]]  # noqa: E731
    tracemalloc.start()
    found = predict_probabilities(head, feed, batch_size=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, mean_probabilities(every))
    assert peak < 1.5 * found.nbytes
