"""Classes of a study's parts: too few are refused before any time is spent, absent ones are said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import invoke
from conftest import build_header, build_store, fill_store
from made_data import made_data

from features.runtime.errors import InputError
from features.store.reader import FeatureStore

HINT = "a head tells classes apart: extract a folder with a sub-folder of images for each of them"


def made(path: Path, labels: list[int], patients: list[str], classes: str, *, skipped: Any = ()) -> Path:
    """Writes a store with these labels and patients, all else as ``build_store`` has it."""
    from dataclasses import replace

    header = replace(
        build_header(rows=len(labels), classes=[*classes]),
        labels=tuple(labels),
        patients=tuple(patients),
        paths=tuple(f"{row}.png" for row in range(len(labels))),
    )
    return fill_store(path, header, skipped=skipped)


SINGLE = {
    "one class": ([0] * 20, "A", (), "one class, A (20 images)"),
    "one left": (
        [0] * 20 + [1] * 3,
        "AB",
        (20, 21, 22),
        "one class, A (20 images), and none of B (3 images that could",
    ),
    "one of three left": ([0] * 20 + [1] * 3, "ABC", (20, 21, 22), "decoded), C (no image)"),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_class_is_refused_at_once(tmp_path, name):
    labels, classes, skipped, found = SINGLE[name]
    store = made(tmp_path / "s.h5", labels, [""] * len(labels), classes, skipped=skipped)
    status, out, err = invoke("search.run", "--features", store, "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(
        f"error: {store}: classes: expected usable images of at least two classes, found one class, A"
    )
    assert found in err
    assert err.endswith(f"; {HINT}\n")
    assert not (tmp_path / "out").exists()


def test_a_class_without_usable_rows_is_named(tmp_path):
    labels = [0] * 20 + [1] * 20 + [2] * 2
    store = made(tmp_path / "s.h5", labels, [""] * 42, "ABC", skipped=(40, 41))
    with pytest.raises(InputError, match=r"classes: expected usable images of every class, found none of C \(2 images"):
        made_data(store)


def test_a_class_whose_patients_are_all_in_another_part_is_named(tmp_path):
    labels, patients = [0] * 30 + [1] * 10, [*map(str, range(30)), *["q"] * 10]
    messages = set()
    for seed in range(12):
        try:
            made_data(made(tmp_path / f"{seed}.h5", labels, patients, "AB"), seed=seed)
        except InputError as error:
            messages.add(str(error).partition(": ")[2])
    (message,) = messages
    assert message.startswith(
        "labels: expected training rows of every class, found none of B, 10 images of 1 patient; "
    )
    assert "--test-fraction 0" in message
    assert "--group-pattern" in message


def test_a_given_store_that_shares_all_patients_leaves_nothing(tmp_path):
    store = build_store(tmp_path / "s.h5", rows=96)
    with pytest.raises(InputError, match="training: expected rows to use, found none left; its patients are all in"):
        made_data(store, test=build_store(tmp_path / "t.h5", rows=96))


def test_parts_that_lack_classes_are_said(tmp_path):
    store = made(tmp_path / "s.h5", [0, 1, 2] * 20, [""] * 60, "ABC")
    other = made(tmp_path / "o.h5", [0] * 6, [""] * 6, "B")
    third = made(tmp_path / "t.h5", [0, 1] * 3, [""] * 6, "CA")
    data = made_data(store, validation=other, test=third)
    assert data.split.absent_classes == {"validation": ("A", "C"), "test": ("B",)}
    assert data.split.class_counts == {"train": (20, 20, 20), "validation": (0, 6, 0), "test": (3, 0, 3)}
    assert data.remarks[-2:] == (
        "validation has no image of 2 classes: A, C",
        "test has no image of class B",
    )
    assert made_data(store).split.absent_classes == {}


def test_folds_that_lack_classes_are_said(tmp_path):
    labels, patients = [0] * 30 + [1] * 30, [*map(str, range(30)), *["q"] * 30]
    data = made_data(made(tmp_path / "s.h5", labels, patients, "AB"), folds=3, test_share=0.0, validation_share=0.0)
    lacking = [name for name, classes in data.split.absent_classes.items() if classes == ("B",)]
    assert len(lacking) == 2
    assert f"{lacking[0]} has no image of class B" in data.remarks
    (whole,) = {"fold 1", "fold 2", "fold 3"}.difference(lacking)
    assert data.remarks[-1] == (
        f"{whole} has all 30 training rows of class B of 1 patient: heads are judged on it that were trained without"
        " that class; they calibrate nothing"
    )
    assert data.has_known_class.tolist() == [label == 0 for label in data.validation_labels]


def test_labels_of_given_stores_are_those_of_the_first(tmp_path):
    store = made(tmp_path / "s.h5", [0, 1, 2] * 20, [""] * 60, "ABC")
    third = made(tmp_path / "t.h5", [0, 1, 0], [""] * 3, "CA")
    before = third.read_bytes()
    data = made_data(store, test=third)
    assert data.test is not None
    assert data.test.labels.tolist() == [2, 0, 2]
    assert data.test.store.classes == ("A", "B", "C")
    assert data.test.store.fingerprint == FeatureStore(third).fingerprint
    assert np.array_equal(data.test.store.take(np.array([2, 0])), FeatureStore(third).take(np.array([2, 0])))
    assert third.read_bytes() == before


def test_classes_that_training_does_not_know_are_refused_by_name(tmp_path):
    store = made(tmp_path / "s.h5", [0, 1, 2] * 20, [""] * 60, "ABC")
    other = made(tmp_path / "o.h5", [0, 1, 1], [""] * 3, "BX")
    expected = r"o\.h5: classes: expected none but those of .*s\.h5: A, B, C, found X \(2 images\)$"
    for part in ("validation", "test"):
        with pytest.raises(InputError, match=expected):
            made_data(store, **{part: other})
    assert made_data(store, test=made(tmp_path / "n.h5", [0, 0], ["", ""], "BX")).test is not None  # X has no row


@pytest.mark.parametrize("folds", [0, 2])
def test_rows_without_an_area_are_refused(tmp_path, folds):
    labels, patients = [0] * 30 + [1] * 30, [*map(str, range(30)), *["q"] * 30]
    store = made(tmp_path / "s.h5", labels, patients, "AB")
    more = ["--folds", folds, "--test-fraction", 0]
    if not folds:
        more = ["--validation", made(tmp_path / "v.h5", [0], [""], "B")]
    status, _, err = invoke("search.run", "--features", store, "--objective", "auc", "--out", tmp_path / "out", *more)
    assert status == 2
    where = "A in fold" if folds else "B in validation"
    assert err.startswith(
        f"error: --objective: expected rows of at least two classes to rank by auc, found only {where}"
    )
