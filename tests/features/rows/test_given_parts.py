"""Parts that were given: used as they are, but that no patient is in two of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import build_header, fill_store
from hypothesis import given, settings
from hypothesis import strategies as st

from features.rows.given_parts import Parted, part_rows
from features.rows.split import split_rows
from features.runtime.errors import InputError
from features.store.reader import FeatureStore

ROWS = 72
"""Of 24 patients, three rows each."""
PATIENTS = ROWS // 3


def store_of(path: Path, parts: tuple[str, ...], skipped: tuple[int, ...] = ()) -> FeatureStore:
    header = replace(build_header(rows=ROWS), parts=parts)
    return FeatureStore(fill_store(path, header, skipped=skipped))


def by_patient(parts: list[str]) -> tuple[str, ...]:
    return tuple(part for part in parts for _ in range(3))


def everything(parted: Parted) -> list[int]:
    split = parted.split
    return sorted(np.concatenate([split.train, split.validation, split.test]).tolist())


def test_whole_parts_are_used_as_they_are(tmp_path: Path) -> None:
    parts = by_patient(["train"] * 16 + ["validation"] * 4 + ["test"] * 4)
    store = store_of(tmp_path / "store.h5", parts, skipped=(70,))
    parted = part_rows(store)
    assert parted.split.train.tolist() == list(range(48))
    assert parted.split.validation.tolist() == list(range(48, 60))
    assert parted.split.test.tolist() == [row for row in range(60, 72) if row != 70]
    assert parted.remarks("store.h5") == [
        "store.h5: train, validation, test as given; --ignore-parts splits all rows anew"
    ]
    anew = part_rows(store, ignore_parts=True)
    expected = split_rows(store.usable, store.labels, store.patients, validation=0.15, test=0.15, seed=0)
    assert anew.split.identity == expected.identity
    assert not anew.given
    assert not anew.remarks("store.h5")


@pytest.mark.parametrize("missing", ["validation", "test"])
def test_a_missing_part_is_split_off_the_training_rows(tmp_path: Path, missing: str) -> None:
    other = "test" if missing == "validation" else "validation"
    store = store_of(tmp_path / "store.h5", by_patient(["train"] * 19 + [other] * 5))
    parted = part_rows(store, validation=0.25, test=0.25)
    made = getattr(parted.split, missing)
    assert 6 <= len(made) <= 21
    assert set(made) <= set(range(57))
    assert getattr(parted.split, other).tolist() == list(range(57, 72))
    assert everything(parted) == list(range(72))
    assert f"train, {other} as given, {missing} split off the training rows" in parted.remarks("s")[0]


def test_patients_in_two_parts_stay_in_the_one_that_judges(tmp_path: Path) -> None:
    parts = list(by_patient(["train"] * 16 + ["validation"] * 4 + ["test"] * 4))
    parts[0], parts[3], parts[48] = "test", "validation", "test"
    parted = part_rows(store_of(tmp_path / "store.h5", tuple(parts)))
    assert parted.left_out == {"validation": 2, "training": 4}
    assert 0 in parted.split.test
    assert not {1, 2, 4, 5} & set(parted.split.train)
    assert not {49, 50} & set(parted.split.validation)
    assert "s: 4 training rows left out: their patients are in another part" in parted.remarks("s")


def test_without_a_validation_part_its_rows_are_trained_on(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store.h5", by_patient(["train"] * 16 + ["validation"] * 4 + ["test"] * 4))
    parted = part_rows(store, validation=0)
    assert (len(parted.split.train), len(parted.split.validation), len(parted.split.test)) == (60, 0, 12)


def test_no_row_is_left_to_train_on(tmp_path: Path) -> None:
    parts = tuple("test" if row % 3 else "train" for row in range(ROWS))
    with pytest.raises(InputError, match="parts: expected rows to train on, found none left; --ignore-parts"):
        part_rows(store_of(tmp_path / "store.h5", parts))


@settings(max_examples=25, deadline=None)
@given(parts=st.lists(st.sampled_from(["", "train", "train", "validation", "test"]), min_size=ROWS, max_size=ROWS))
def test_no_patient_is_in_two_parts_and_no_row_is_lost_unsaid(tmp_path_factory, parts: list[str]) -> None:
    store = store_of(tmp_path_factory.mktemp("any") / "store.h5", tuple(parts))
    try:
        parted = part_rows(store)
    except InputError:
        return  # too few patients are left for a part
    split = parted.split
    owners = [set(store.patients[rows]) for rows in (split.train, split.validation, split.test)]
    assert sum(map(len, owners)) == len(set.union(*owners))
    assert len(everything(parted)) + sum(parted.left_out.values()) == ROWS
    for rows, name in ((split.validation, "validation"), (split.test, "test")):
        if name in parted.given:
            assert {parts[row] for row in rows} == {name}


def test_a_store_says_parts_and_no_others(tmp_path: Path) -> None:
    parts = by_patient(["train"] * 16 + ["validation"] * 4 + ["test"] * 4)
    store = store_of(tmp_path / "store.h5", parts)
    assert store.header.parts == parts
    assert store.fingerprint == store_of(tmp_path / "none.h5", ()).fingerprint  # features are the same
    with h5py.File(store.path, "r+") as file:
        file["parts"][5] = b"tset"
    with pytest.raises(InputError, match="parts: expected one of train, validation, test, found another in row 5"):
        FeatureStore(store.path)
