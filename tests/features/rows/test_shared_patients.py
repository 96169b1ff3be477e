"""Rows of patients that are in another part: left out by name, across sources, and told in a line."""

from types import SimpleNamespace

import numpy as np

from features.rows.shared_patients import describe_left_out, without_patients_of


def source_of(*patients: str) -> SimpleNamespace:
    return SimpleNamespace(patients=np.array(patients))


def test_rows_of_patients_in_any_other_part_are_left_out():
    source, other = source_of("a", "b", "", "c", "d", "b"), source_of("c", "", "x")
    kept = without_patients_of(source, np.array([5, 0, 2, 3, 4]), [(other, np.arange(3)), (source, np.array([1]))])
    assert kept.tolist() == [0, 2, 4]
    assert without_patients_of(source, np.arange(6), []).tolist() == list(range(6))


def test_one_row_is_one_row_and_none_are_not_told():
    told = describe_left_out("s.h5", {"validation": 0, "training": 1, "test": 2345})
    assert told == [
        "s.h5: 1 training row left out: their patients are in another part",
        "s.h5: 2,345 test rows left out: their patients are in another part",
    ]
