"""Metrics against values worked out by other means."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from features.runtime.errors import BottleneckError
from heads.metrics.classification import measure, pairs_of
from heads.metrics.intervals import wilson_interval
from heads.metrics.scoring import score

NAMES = ("a", "b", "c")


def sure(predicted: list[int], classes: int = 3) -> np.ndarray:
    """Probabilities of 0.8 for the class predicted, the rest spread evenly."""
    return np.where(np.eye(classes)[predicted] == 1, 0.8, 0.2 / (classes - 1)).astype(np.float32)


def test_a_small_table_by_hand() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    metrics = measure(sure([0, 0, 0, 1, 1, 1, 0, 0]), labels, NAMES)
    assert metrics.confusion == ((3, 1, 0), (1, 2, 0), (1, 0, 0))
    assert (metrics.rows, metrics.accuracy) == (8, 5 / 8)
    assert metrics.balanced_accuracy == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    first, _, last = metrics.per_class
    assert (first.rows, first.sensitivity, first.specificity, first.precision) == (4, 3 / 4, 2 / 4, 3 / 5)
    assert (last.rows, last.sensitivity, last.specificity, last.precision) == (1, 0.0, 1.0, None)
    # of the 4 x 4 pairs of an a and another: 3 a's above the 2 b's that were called b (6), ties 3 x 2, 1 x 2
    assert first.auc == pytest.approx((6 + 0.5 * (3 * 2 + 1 * 2)) / 16)
    assert metrics.loss == pytest.approx((5 * -np.log(0.8) + 3 * -np.log(0.1)) / 8, rel=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(2, 6))
def test_agrees_with_scikit_learn(seed: int, rows: int, classes: int) -> None:
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), generator.integers(0, classes, rows)])
    probabilities = generator.dirichlet(np.ones(classes), len(labels)).astype(np.float32)
    predicted = probabilities.argmax(1)
    metrics = measure(probabilities, labels, tuple(map(str, range(classes))))
    assert metrics.accuracy == score(probabilities, labels).accuracy
    assert metrics.balanced_accuracy == pytest.approx(reference.recall_score(labels, predicted, average="macro"))
    balanced = score(probabilities, labels, "balanced_accuracy").ranking_score
    assert metrics.balanced_accuracy == pytest.approx(balanced, rel=1e-12)
    precisions = reference.precision_score(labels, predicted, average=None, zero_division=0)
    aucs = [reference.roc_auc_score(labels == label, probabilities[:, label]) for label in range(classes)]
    for one, precision, auc in zip(metrics.per_class, precisions, aucs, strict=True):
        assert (one.precision or 0) == pytest.approx(precision)
        assert one.auc == pytest.approx(auc)
    assert score(probabilities, labels, "auc").ranking_score == np.mean([one.auc for one in metrics.per_class])
    assert sum(map(sum, metrics.confusion)) == len(labels)
    assert pairs_of(metrics.confusion, tuple(map(str, range(classes)))) == metrics.pairs


def test_a_class_without_rows_is_undefined() -> None:
    metrics = measure(sure([0, 1, 0, 2]), np.array([0, 1, 1, 0]), NAMES)
    absent = metrics.per_class[2]
    assert (absent.rows, absent.sensitivity, absent.auc) == (0, None, None)
    assert (absent.specificity, absent.precision) == (3 / 4, 0.0)
    assert metrics.balanced_accuracy == 0.5


def test_one_class_alone() -> None:
    only = measure(sure([1, 1, 0]), np.array([1, 1, 1]), NAMES).per_class[1]
    assert (only.sensitivity, only.specificity, only.auc) == (2 / 3, None, None)


def test_no_rows() -> None:
    metrics = measure(np.zeros((0, 3), np.float32), np.zeros(0, np.int32), NAMES)
    assert (metrics.rows, metrics.accuracy, metrics.accuracy_interval, metrics.loss) == (0, None, None, None)
    assert metrics.balanced_accuracy is None


def test_json_comes_back() -> None:
    data = measure(sure([0, 1, 0, 2]), np.array([0, 1, 1, 0]), NAMES).to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["per_class"][2]["auc"] is None
    assert data["confusion"] == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]


def test_not_finite() -> None:
    with pytest.raises(BottleneckError, match="not finite"):
        measure(np.full((2, 3), np.nan), np.array([0, 1]), NAMES)


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, table I, method 3 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E)
    for correct, rows, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert wilson_interval(correct, rows) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.integers(1, 10_000), st.data())
def test_wilson_holds_the_share(rows: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, rows))
    low, high = wilson_interval(correct, rows)
    assert 0 <= low <= correct / rows <= high <= 1
    # the ends are where the share would be just rejected: the definition of the interval
    for end in (low, high):
        if 0 < end < 1:
            deviation = abs(correct / rows - end) / np.sqrt(end * (1 - end) / rows)
            assert deviation == pytest.approx(1.959964, rel=1e-3)
