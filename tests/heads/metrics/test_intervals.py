"""Intervals of accuracies over patients, against what is known of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from heads.metrics.intervals import (
    accuracy_interval,
    difference_interval,
    is_within,
    mean_interval,
    paired_difference,
    wilson_interval,
)


def drawn(seed: int, patients: int, images: int, *, alike: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rightness of each image; ``alike``: all images of a patient are classified correctly or none."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(patients), images)
    right = generator.random(patients)[groups] if alike else generator.random(len(groups))
    return right < 0.8, groups


def test_images_of_one_patient_that_are_alike_widen_the_interval():
    alike, groups = drawn(1, 60, 5, alike=True)
    apart, _ = drawn(1, 60, 5, alike=False)
    widths = [np.diff(accuracy_interval(right, groups))[0] for right in (alike, apart)]
    assert widths[0] > 1.7 * widths[1]  # the square root of 5 in the long run
    one_each = np.diff(accuracy_interval(alike[::5], groups[::5]))[0]
    assert widths[0] == pytest.approx(one_each, rel=0.02)


def test_covers_the_true_share_about_as_often_as_it_says():
    inside = []
    for seed in range(60):
        right, groups = drawn(seed, 80, 2, alike=True)
        low, high = accuracy_interval(right, groups)
        inside.append(low <= 0.8 <= high)
    assert np.mean(inside) >= 0.87


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), patients=st.integers(2, 30))
def test_the_share_lies_inside_and_names_of_patients_do_not_matter(seed, patients):
    right, groups = drawn(seed, patients, 3, alike=True)
    low, high = accuracy_interval(right, groups)
    assert 0 <= low <= right.mean() <= high <= 1
    order = np.random.default_rng(seed).permutation(len(right))
    assert accuracy_interval(right[order], groups[order]) == pytest.approx((low, high))


def test_without_an_error_the_interval_is_that_of_as_many_patients():
    right, groups = np.ones(30, bool), np.repeat(np.arange(10), 3)
    assert accuracy_interval(right, groups) == wilson_interval(10, 10)
    assert accuracy_interval(~right, groups) == wilson_interval(0, 10)


def test_differences_are_paired():
    """Two heads that err on the same hard patients differ by little, however wide the interval of each is."""
    right, groups = drawn(3, 100, 2, alike=True)
    better = right.copy()
    better[np.flatnonzero(~right)[:12]] = True
    low, high = difference_interval(better, right, groups)
    assert 0 < low < 12 / 200 < high < 0.12
    flipped = difference_interval(right, better, groups)
    assert flipped == pytest.approx((-high, -low), abs=1e-12)


def test_chance_alone_is_seldom_called_more_than_chance():
    called = []
    for seed in range(50):
        one, groups = drawn(2 * seed, 60, 2, alike=True)
        other, _ = drawn(2 * seed + 1, 60, 2, alike=True)
        low, high = difference_interval(one, other, groups)
        called.append(low > 0 or high < 0)
    assert np.mean(called) <= 0.12


def test_of_one_patient_nothing_is_known():
    right = np.arange(10) < 9
    groups = np.zeros(10, int)
    assert accuracy_interval(right, groups) == (0, 1)
    assert difference_interval(right, ~right, groups) == (-1, 1)
    assert difference_interval(right, right, groups) == (-1, 1)


@pytest.mark.parametrize("patients", [2, 6, 60])
def test_two_heads_that_call_all_rows_alike_may_differ_on_other_patients(patients):
    right, groups = drawn(1, patients, 3, alike=True)
    most = wilson_interval(0, patients)[1]
    assert difference_interval(right, right, groups) == (-most, most)


def test_patients_that_are_all_alike_leave_the_interval_of_their_images():
    groups = np.repeat(np.arange(4), 10)
    right = np.tile(np.arange(10) < 9, 4)
    assert accuracy_interval(right, groups) == pytest.approx(wilson_interval(36, 40))
    low, high = difference_interval(right, np.tile(np.arange(10) < 8, 4), groups)
    assert low < 0.01
    assert high > 0.1


@pytest.mark.parametrize(("patients", "images"), [(2, 20), (3, 20), (6, 12), (10, 8)])
def test_few_patients_seldom_show_a_difference_that_is_none(patients, images):
    generator = np.random.default_rng(patients)
    groups = np.repeat(np.arange(patients), images)
    called = []
    for _ in range(100):
        one, other = (generator.random(len(groups)) < generator.beta(8, 1.5, patients)[groups] for _ in range(2))
        low, high = difference_interval(one, other, groups)
        called.append(low > 0 or high < 0)
    assert np.mean(called) <= 0.1


def test_of_many_patients_with_an_image_each_it_is_that_of_the_images():
    generator = np.random.default_rng(0)
    right, groups = generator.random(200_000) < 0.9, np.arange(200_000)
    low, high = accuracy_interval(right, groups)
    assert (low, high) == pytest.approx(wilson_interval(int(right.sum()), len(right)), abs=2e-4)


@given(
    differences=st.lists(st.floats(-1, 1), min_size=4, max_size=40),
    offset=st.floats(-1, 1),
)
def test_the_error_is_that_of_a_mean_where_each_row_is_a_patient(differences, offset):
    values = np.asarray(differences)
    other = np.full(len(values), offset)
    mean, error = paired_difference(values + other, other, np.arange(len(values)))
    assert mean == pytest.approx(values.mean(), abs=1e-9)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)), abs=1e-9)


def test_rows_of_one_patient_count_together():
    values, patients = np.array([1.0, 1, 1, 0, 0, 0]), np.repeat([0, 1], 3)
    alone = paired_difference(values, np.zeros(6), np.arange(6))[1]
    assert paired_difference(values, np.zeros(6), patients)[1] == pytest.approx(0.5)
    assert alone < 0.5


def test_where_all_rows_are_of_one_patient_rows_are_the_units():
    values = np.array([1.0, 0, 0, 0, 0, 0])
    of_one = paired_difference(values, np.zeros(6), np.zeros(6, int))
    assert of_one == paired_difference(values, np.zeros(6), np.arange(6))
    assert of_one[1] > 0.1


@given(patients=st.integers(2, 200), rows_each=st.integers(1, 3), runs=st.integers(1, 5))
def test_a_single_row_is_never_more_than_a_standard_error(patients, rows_each, runs):
    groups = np.repeat(np.arange(patients), rows_each)
    best, other = np.ones(len(groups)), np.ones(len(groups))
    other[0] -= 1 / runs
    assert is_within(*paired_difference(best, other, groups))


def test_of_a_few_patients_with_an_image_each_it_reaches_as_far_as_students_t():
    values = np.arange(5.0)
    low, high = mean_interval(values, np.arange(5))
    expected = t.interval(0.95, 4, values.mean(), values.std(ddof=1) / np.sqrt(5))
    assert low <= expected[0] + 1e-9
    assert high >= expected[1] - 1e-9


def test_the_interval_of_a_mean_has_the_unit_of_its_values():
    generator = np.random.default_rng(0)
    values, groups = generator.normal(50, 10, 120), np.repeat(np.arange(40), 3)
    low, high = mean_interval(values, groups)
    assert low < values.mean() < high
    assert mean_interval(2 * values - 7, groups) == pytest.approx((2 * low - 7, 2 * high - 7))
    assert mean_interval(values, np.zeros(120, int)) == (-np.inf, np.inf)


def test_where_few_are_wrong_the_lower_end_reaches_as_far_as_wilsons_over_patients_that_are_alike():
    groups = np.repeat(np.arange(40), 2)
    low, _ = accuracy_interval(groups >= 3, groups)
    assert low < wilson_interval(37, 40)[0]


def test_a_patient_with_a_third_of_the_images_does_not_hide_its_own_error():
    groups = np.concatenate([np.zeros(20, int), np.arange(1, 41)])
    values = np.where(groups == 0, 0.5, 0.9) + 0.05 * (-1.0) ** np.arange(60)
    low, high = mean_interval(values, groups)
    without = values[groups > 0].mean() - values.mean()  # how far the mean moves where this patient is left out
    assert low < values.mean() - 1.9 * without
    assert high > values.mean() + 1.9 * without
