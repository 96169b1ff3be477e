"""Curves behind the numbers: by hand, and held against the numbers of ``heads.metrics.classification``."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heads.metrics.classification import measure
from heads.metrics.curves import reliability, roc


@st.composite
def scored_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of up to 60 rows and 4 classes, ties and certainties among them, and labels."""
    rows, classes = draw(st.integers(1, 60)), draw(st.integers(2, 4))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = generator.integers(0, draw(st.sampled_from([2, 4, 1000])), (rows, classes)) + 1e-9
    probabilities = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities, generator.integers(0, classes, rows)


class TestRoc:
    def test_by_hand(self) -> None:
        probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
        curve = roc(probabilities, np.array([0, 1, 0, 1]), 1)
        assert curve is not None
        assert list(zip(*curve, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]

    @pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], []])
    def test_needs_rows_of_both_sides(self, labels: list[int]) -> None:
        assert roc(np.full((len(labels), 2), 0.5), np.array(labels, int), 1) is None

    @given(scored_rows())
    def test_climbs_and_encloses_the_area_that_is_told(self, rows: tuple[np.ndarray, np.ndarray]) -> None:
        probabilities, labels = rows
        metrics = measure(probabilities, labels, tuple("abcd"[: probabilities.shape[1]]))
        for label, told in enumerate(metrics.per_class):
            curve = roc(probabilities, labels, label)
            assert (curve is None) == (told.auc is None)
            if curve is None:
                continue
            for shares in curve:
                assert (shares[0], shares[-1]) == (0, 1)
                assert (np.diff(shares) >= 0).all()
            area = np.trapezoid(curve.true_positives, curve.false_positives)
            assert area == pytest.approx(told.auc, abs=1e-6)


class TestReliability:
    def test_by_hand(self) -> None:
        probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.3, 0.7], [1.0, 0.0]])
        bins = reliability(probabilities, np.array([0, 1, 1, 0]))
        np.testing.assert_allclose(bins.confidence, [0.7, (0.95 + 0.91 + 1) / 3])
        np.testing.assert_allclose(bins.accuracy, [1, 2 / 3])
        assert bins.rows.tolist() == [1, 3]
        assert bins.error == pytest.approx((0.3 + 3 * abs(2 / 3 - (0.95 + 0.91 + 1) / 3)) / 4)

    def test_a_head_that_is_as_sure_as_it_is_right(self) -> None:
        probabilities = np.tile([[0.75, 0.25]], (4, 1))
        assert reliability(probabilities, np.array([0, 0, 0, 1])).error == pytest.approx(0)
        assert reliability(probabilities, np.array([1, 1, 1, 1])).error == pytest.approx(0.75)

    @given(scored_rows(), st.integers(1, 20))
    def test_every_row_is_in_one_bin(self, rows: tuple[np.ndarray, np.ndarray], count: int) -> None:
        probabilities, labels = rows
        bins = reliability(probabilities, labels, bins=count)
        assert bins.rows.sum() == len(labels)
        assert bins.rows.min() > 0
        assert len(bins.rows) <= count
        sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        assert bins.rows @ bins.accuracy == pytest.approx(right.sum())
        assert bins.rows @ bins.confidence == pytest.approx(sure.sum(dtype=np.float64), rel=1e-6)
        assert (np.diff(bins.confidence) > 0).all()
        # the gap of all rows together is the least that any bins can show
        assert abs(right.mean() - sure.mean()) - 1e-6 <= bins.error <= 1
