"""Of whom rows are, in words: nobody is said to be known who is not."""

from __future__ import annotations

import numpy as np
import pytest

from heads.metrics.classification import measure
from heads.metrics.patients import of_patients

WORDS = {
    ("a", "b", "b"): " of 2 patients",
    ("a", "a", "a"): " of 1 patient",
    ("a", "", "b", ""): " of 2 patients and 2 unknown",
    ("", "", ""): " whose patients are not known",
}


@pytest.mark.parametrize("patients", WORDS)
def test_known_patients_are_counted_and_unknown_ones_said(patients):
    sure = np.eye(2, dtype=np.float32)[np.zeros(len(patients), int)]
    metrics = measure(sure, np.zeros(len(patients), int), ("A", "B"), patients=np.array(patients))
    assert of_patients(metrics.patients, metrics.patients_unknown) == WORDS[patients]
    assert metrics.to_dict()["patients_unknown"] == patients.count("")


def test_where_nobody_asked_nothing_is_said():
    metrics = measure(np.eye(2, dtype=np.float32), np.arange(2), ("A", "B"))
    assert (metrics.patients, metrics.patients_unknown) == (None, 0)
    assert of_patients(metrics.patients, metrics.patients_unknown) == ""
