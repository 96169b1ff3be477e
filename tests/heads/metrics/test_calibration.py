"""Temperatures: found again where they were put in, and applied without changing who is called what."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heads.metrics.calibration import COLDEST, HOTTEST, fit_temperature, with_temperature
from heads.metrics.curves import reliability
from heads.metrics.scoring import score


def believable(seed: int, rows: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn from them: calibrated by construction."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(4, 0.5), rows).astype(np.float32)
    labels = (generator.random(rows)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)
    return probabilities, np.minimum(labels, 3)


@settings(max_examples=6)
@given(seed=st.integers(0, 100), temperature=st.floats(0.3, 4))
def test_a_temperature_that_was_put_in_is_found_and_undone(seed, temperature):
    true, labels = believable(seed)
    too_sure = with_temperature(true, temperature)
    found = fit_temperature(too_sure, labels)
    assert found == pytest.approx(1 / temperature, rel=0.2)
    mended = with_temperature(too_sure, found)
    assert score(mended, labels).loss <= score(too_sure, labels).loss + 1e-6
    if not 0.8 < temperature < 1.25:
        assert reliability(mended, labels).error < reliability(too_sure, labels).error


@given(seed=st.integers(0, 100), temperature=st.floats(COLDEST, HOTTEST))
def test_calls_and_sums_stay(seed, temperature):
    probabilities, _ = believable(seed, 50)
    found = with_temperature(probabilities, temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    clear = np.sort(probabilities, axis=1)
    clear = clear[:, -1] - clear[:, -2] > 1e-4
    assert (found.argmax(1) == probabilities.argmax(1))[clear].all()
    assert found.dtype == np.float32


def test_none_and_1_leave_probabilities_as_they_are():
    probabilities, _ = believable(1, 50)
    np.testing.assert_array_equal(with_temperature(probabilities, None), probabilities)
    np.testing.assert_allclose(with_temperature(probabilities, 1.0), probabilities, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_however_many_rows_there_are_each_is_calibrated_as_if_alone(classes):
    rows = 2**18 // classes + 5
    probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), (2, rows)).astype(np.float32)
    found = with_temperature(probabilities, 1.7)
    assert found.shape == probabilities.shape
    for row in (0, 2**17 // classes, rows - 1):
        np.testing.assert_array_equal(found[:, row], with_temperature(probabilities[:, row], 1.7))
        np.testing.assert_array_equal(found[0, row], with_temperature(probabilities[0, row], 1.7))
    assert with_temperature(probabilities[:, :0], 1.7).shape == (2, 0, classes)


def test_calibrating_takes_no_more_memory_than_what_is_returned():
    probabilities = np.full((20_000, 200), 1 / 200, np.float32)
    tracemalloc.start()
    found = with_temperature(probabilities, 1.7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * found.nbytes


def test_very_sure_heads_keep_the_order_of_their_rows():
    unlikely = np.array([1e-8, 1e-12, 1e-20, 1e-28], np.float32)
    probabilities = np.stack([1 - unlikely, unlikely], axis=1)
    for temperature in (0.9, 1.0, 3.0):
        assert (np.diff(with_temperature(probabilities, temperature)[:, 1]) < 0).all()


def test_a_head_that_is_always_wrong_is_held_back_the_more_the_more_rows_say_so():
    few, many = (fit_temperature(np.array([[0.9, 0.1]] * rows, np.float32), np.ones(rows, int)) for rows in (5, 500))
    assert 2 < few < 15 < many <= HOTTEST


def test_rows_that_are_all_called_rightly_say_how_unsure_is_too_unsure_and_not_how_sure_is_too_sure():
    rows, labels = 100, np.zeros(100, int)
    unsure, sure = (np.array([[share, 1 - share]] * rows, np.float32) for share in (0.6, 1 - 1e-6))
    assert 0.9 < with_temperature(unsure, fit_temperature(unsure, labels))[0, 0] < 0.9999
    assert fit_temperature(sure, labels) == pytest.approx(1.0, abs=0.01)
    assert str(score(np.array([[1.0, 0.0]], np.float32), np.array([0])).loss) == "0.0"


def test_rows_that_several_heads_call_alike_say_no_more_than_once():
    called, labels = np.array([[0.9, 0.1]] * 40, np.float32), np.zeros(40, int)
    once = fit_temperature(called, labels)
    assert fit_temperature(np.tile(called, (5, 1)), np.tile(labels, 5), repeats=5) == pytest.approx(once, rel=1e-3)
    assert fit_temperature(np.tile(called, (5, 1)), np.tile(labels, 5)) < 0.9 * once  # as of five times the rows


def test_between_all_rows_right_and_one_wrong_there_is_no_jump():
    called, labels = np.array([[0.65, 0.35]] * 100, np.float32), np.zeros(100, int)
    found = []
    for wrong in (0.4999, 0.5001, 0.55):  # the last one's other class
        called[-1] = 1 - wrong, wrong
        found.append(fit_temperature(called, labels))
    assert found[0] == pytest.approx(found[1], rel=0.01)
    assert found[1] < found[2] < 1.5 * found[1]


@settings(max_examples=10)
@given(seed=st.integers(0, 100), temperature=st.floats(0.1, 4), classes=st.integers(2, 300))
@example(seed=2, temperature=2.5, classes=199)
@example(seed=89, temperature=0.86, classes=14)
def test_it_is_the_likely_temperature_whose_probabilities_score_best(seed, temperature, classes):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(classes, 0.1), 200).astype(np.float32)
    labels = generator.integers(0, classes, 200)
    labels[20:] = probabilities[20:].argmax(axis=1)
    probabilities = with_temperature(probabilities, temperature)

    def loss(logarithm: float) -> float:
        unlikely = logarithm**2 / 2 / len(labels)
        return score(with_temperature(probabilities, float(np.exp(logarithm))), labels).loss + unlikely

    tried = np.linspace(np.log(COLDEST), np.log(HOTTEST), 40)
    found = float(np.log(fit_temperature(probabilities, labels)))
    assert loss(found) <= min(map(loss, tried)) + 5e-3  # the loss has a floor, which makes hollows a little apart


def test_the_logarithms_are_taken_once(monkeypatch):
    taken, of_all = [], np.log
    monkeypatch.setattr(np, "log", lambda numbers, **told: taken.append(np.size(numbers)) or of_all(numbers, **told))
    probabilities, labels = believable(3)
    fit_temperature(probabilities, labels)
    assert taken.count(probabilities.size) == 1
