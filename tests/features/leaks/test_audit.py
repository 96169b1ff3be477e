"""What parts share, counted in the rows that are used: by ``features.info`` and by every search."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import succeed
from conftest import build_header, fill_store
from made_data import made_data
from meeting import meet
from test_duplicates import blurred, draw_images

from features.leaks.leaks import Part, count_patients, default_parts, find_leaks
from features.rows.split import SEED, TEST_FRACTION, VALIDATION_FRACTION
from features.store.reader import FeatureStore
from features.store.writer import StoreWriter
from search.record.results import LeakCounts
from search.review.trust import leaks
from search.setup import audit as search_audit
from search.setup.audit import AUDIT_FILE, PAIRS_FILE, audit_study, describe, parts_of, read_audit
from search.setup.data import SearchData
from search.setup.options import RunOptions

DEFAULTS = RunOptions().model_dump()


def write_store(
    path: Path, images: np.ndarray, *, patients: tuple[str, ...] | None = None, parts: tuple[str, ...] = ()
) -> FeatureStore:
    """A finished store: classes in turn, three rows a patient, unless other patients are given."""
    header = build_header(rows=len(images), shape=images.shape[1:], dtype="float32", batch_size=len(images))
    header = replace(header, patients=patients or header.patients, parts=parts)
    return FeatureStore(fill_store(path, header, images[:, None]))


@pytest.fixture
def images() -> np.ndarray:
    """Features of 240 rows, 80 patients, without a copy."""
    return draw_images(240)


def load(store: FeatureStore, **options) -> SearchData:
    return made_data(store.path, share=0.15, **options)


def row_of(data: SearchData, part: str, number: int = 0) -> int:
    return int(data.rows[part][number])


def test_shared_patients_are_counted_not_assumed(tmp_path, images):
    store = write_store(
        tmp_path / "a.h5", images[:12], patients=("a", "a", "b", "b", "", "", "c", "c", "c", "d", "", "")
    )
    rows = np.arange(12)
    parts = [Part("one", store, rows[:5]), Part("two", store, rows[5:8]), Part("three", store, rows[8:])]
    found = count_patients(parts)
    assert found.rows == {"one": 5, "two": 3, "three": 4}
    assert found.patients == {"one": 2, "two": 1, "three": 2}
    assert found.patients_shared == 1
    assert count_patients([*parts, Part("four", store, rows[:1])]).patients_shared == 2
    assert found.to_dict()["near_identical"] is None


def test_pairs_within_a_part_are_looked_for_only_on_request(tmp_path, images):
    images[21], images[22], images[100] = images[0], images[18], images[0]  # patients 1007, 1007, 1033 and 1000, 1006
    store = write_store(tmp_path / "a.h5", images)
    parts = [Part("one", store, np.arange(90)), Part("two", store, np.arange(90, 240))]
    across = find_leaks(parts)
    assert [(pair.first_path, pair.second_path, pair.similarity) for pair in across.pairs] == [
        ("CNV/CNV-1000-1.png", "DME/DME-1033-2.png", 1),
        ("NORMAL/NORMAL-1007-1.png", "DME/DME-1033-2.png", 1),
    ]
    every = find_leaks(parts, within_parts=True)
    assert len(every.pairs) == 4
    assert sum(pair.across for pair in every.pairs) == 2
    first = across.pairs[0]
    assert (first.first_part, first.first_patient, first.first_class) == ("one", "1000", "CNV")
    assert (first.second_part, first.second_patient, first.second_class) == ("two", "1033", "DME")
    assert str(first) == "1.0000 one CNV/CNV-1000-1.png = two DME/DME-1033-2.png"


def test_one_patient_under_two_classes_is_two_owners(tmp_path, images):
    images[3], images[1] = images[0], images[0]
    patients = ("p",) * 6 + tuple(f"q{row}" for row in range(234))
    store = write_store(tmp_path / "a.h5", images, patients=patients)  # rows 0 to 2 are CNV, 3 to 5 DME
    found = find_leaks([Part("", store, store.usable)], within_parts=True)
    assert {(pair.first_path, pair.second_path) for pair in found.pairs} == {
        ("CNV/CNV-1000-1.png", "DME/DME-1001-1.png"),
        ("CNV/CNV-1000-2.png", "DME/DME-1001-1.png"),
    }


def test_the_default_parts_are_those_of_a_search_with_one_validation_part(tmp_path, images):
    assert (DEFAULTS["seed"], DEFAULTS["validation_fraction"], DEFAULTS["test_fraction"]) == (
        SEED,
        VALIDATION_FRACTION,
        TEST_FRACTION,
    )
    store = write_store(tmp_path / "a.h5", images)
    data = load(store, validation_share=DEFAULTS["validation_fraction"], test_share=DEFAULTS["test_fraction"])
    for mine, theirs in zip(default_parts(store), parts_of(data), strict=True):
        assert mine.name == theirs.name
        assert mine.rows.tolist() == theirs.rows.tolist()


def test_info_counts_one_pair_as_one(tmp_path, images):
    images[120] = images[0]
    path = write_store(tmp_path / "a.h5", images).path
    assert "1 pair of different patients or classes, " in succeed("features.info", path).out


def test_info_shows_parts_and_pairs(tmp_path, images):
    for copy in range(12):
        images[120 + copy] = images[copy]
    path = write_store(tmp_path / "a.h5", images).path
    text = " ".join(succeed("features.info", path).out.replace("│", " ").split())
    assert (
        "patients in two parts: 0 (as search.run --folds 0 splits them; without it, where validation rows are few,"
        in text
    )
    assert "12 pairs of different patients or classes" in text
    assert text.count(" = ") == 10
    assert "and 2 more (--json has them)" in text
    told = json.loads(succeed("features.info", path, "--json").out)["leaks"]
    assert told["split"] == {"seed": 0, "validation": 0.15, "test": 0.15}
    assert sum(told["rows"].values()) == 240
    assert sum(told["patients"].values()) == 80
    assert told["patients_shared"] == 0
    assert told["near_identical"] == len(told["pairs"]) == 12
    assert 0 < told["near_identical_across_parts"] <= 12
    assert told["pairs"][0]["similarity"] == 1
    quick = json.loads(succeed("features.info", path, "--json", "--quick").out)["leaks"]
    assert quick["rows"] == told["rows"]
    assert quick["near_identical"] is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("validation", "test"), "(as given, and as search.run uses them)"),
        (("validation",), "(validation as given, and as search.run splits the rest)"),
        (("test",), "(test as given, and as search.run --folds 0 splits the rest; without it,"),
        ((), "(as search.run --folds 0 splits them; without it,"),
    ],
)
def test_info_says_which_parts_a_search_takes_as_they_are(tmp_path, images, given, words):
    parts = tuple(given[row // 3 % 8] if row // 3 % 8 < len(given) else "train" for row in range(len(images)))
    path = write_store(tmp_path / "a.h5", images, parts=parts).path
    assert words in " ".join(succeed("features.info", path, "--quick").out.replace("│", " ").split())


def test_info_of_a_store_that_cannot_be_split_says_why(tmp_path, images):
    few = succeed("features.info", write_store(tmp_path / "few.h5", images[:9]).path)
    assert "none: split: expected at least" in few.out
    header = build_header(rows=20, batch_size=8)
    with StoreWriter(tmp_path / "pending.h5", header):
        pending = succeed("features.info", tmp_path / "pending.h5")
    assert "none: not all rows are there yet" in pending.out


def test_a_study_lists_pairs_across_its_parts(tmp_path, images):
    data = load(write_store(tmp_path / "clean.h5", images))
    trained, validated, tested = (row_of(data, name) for name in ("train", "validation", "test"))
    images[tested], images[validated] = images[trained], blurred(images[row_of(data, "train", 1)], 0.3)
    images[row_of(data, "train", 20)] = images[row_of(data, "train", 40)]  # no leak: both are trained on
    data = load(write_store(tmp_path / "a.h5", images))
    found = audit_study(tmp_path, data)
    assert found.patients_shared == 0
    assert found.near_identical == 2
    assert [pair.second_part for pair in found.pairs] == ["test", "validation"]
    assert found == read_audit(tmp_path)
    with (tmp_path / PAIRS_FILE).open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["second_path"] for row in table] == [pair.second_path for pair in found.pairs]
    assert {row["first_part"] for row in table} == {"train"}
    lines = list(describe(found))
    counts, patients = data.split.counts, data.split.patients
    assert f"test {counts['test']} rows of {patients['test']} patients; patients in two parts: 0" in lines[0]
    assert lines[1] == "warning: near-identical images across parts: 2 pairs, listed in near_identical.csv"
    assert len(lines) == 5
    assert data.store.header.paths[tested] in lines[2]


def test_where_no_patient_is_known_none_is_counted(tmp_path, images):
    store = write_store(tmp_path / "a.h5", images, patients=("",) * len(images))
    (line, _) = describe(audit_study(tmp_path, load(store)))
    assert line == "train 170 rows, validation 35 rows, test 35 rows; no patient is known"
    assert f"{line} (as search.run --folds 0 splits them; " in " ".join(
        succeed("features.info", store.path).out.replace("│", " ").split()
    )


def test_a_study_without_pairs_says_so_and_writes_an_empty_list(tmp_path, images):
    found = audit_study(tmp_path, load(write_store(tmp_path / "a.h5", images)))
    assert list(describe(found))[1:] == ["near-identical images across parts: none"]
    assert (tmp_path / PAIRS_FILE).read_text().count("\n") == 1


@pytest.mark.parametrize(("values", "compared"), [(1, False), (7, False), (8, True)])
def test_features_of_very_few_values_are_not_compared_and_that_is_said(tmp_path, images, values, compared):
    few = images[:, :1, :1, :values]
    few[1] = few[0]
    store = write_store(tmp_path / "a.h5", few)
    told = "near-identical images across parts: not looked for: fewer than 8 values an image tell no copies"
    found = audit_study(tmp_path, load(store))
    assert (found.near_identical is not None) == compared
    assert (told in describe(found)) == (not compared)
    assert read_audit(tmp_path) == found
    assert LeakCounts.of(found).near_identical == found.near_identical
    reported = "".join(leaks(SimpleNamespace(folder=tmp_path)))
    shown = " ".join(succeed("features.info", store.path).out.replace("│", " ").split())
    assert {"not looked for: fewer than 8 values" in text for text in (reported, shown)} == {not compared}


def test_folds_are_parts_and_many_pairs_are_cut_short(tmp_path, images):
    data = load(write_store(tmp_path / "clean.h5", images), folds=3)
    for one, other in zip(data.folds[0][:14], data.folds[2][:14], strict=True):
        images[other] = images[one]
    found = audit_study(tmp_path, load(write_store(tmp_path / "a.h5", images), folds=3))
    assert list(found.rows) == ["fold 1", "fold 2", "fold 3", "test"]
    assert sum(found.rows.values()) == 240
    assert (found.patients_shared, found.near_identical) == (0, 14)
    assert {(pair.first_part, pair.second_part) for pair in found.pairs} == {("fold 1", "fold 3")}
    assert len(found.pairs) == 10
    assert (tmp_path / PAIRS_FILE).read_text().count("\n") == 15
    assert "  and 9 more" in list(describe(found))


def test_stores_of_their_own_are_compared(tmp_path, images):
    train = write_store(tmp_path / "train.h5", images[:180])
    others = tuple(f"v{row}" for row in range(60))
    images[180], images[200, :] = images[5], images[6, :, ::-1]
    validation = write_store(tmp_path / "validation.h5", images[180:], patients=others)
    found = audit_study(tmp_path, load(train, validation=validation.path, test_share=0.0))
    assert list(found.rows.values()) == [180, 60]
    assert {(pair.first_path, pair.second_path, pair.mirrored) for pair in found.pairs} == {
        (train.header.paths[5], validation.header.paths[0], False),
        (train.header.paths[6], validation.header.paths[20], True),
    }


def test_a_resumed_study_is_audited_once_unless_its_parts_are_others(tmp_path, images, monkeypatch):
    data = load(write_store(tmp_path / "a.h5", images))
    found = audit_study(tmp_path, data)
    with monkeypatch.context() as patch:
        patch.setattr(search_audit, "find_leaks", lambda *args, **options: pytest.fail("audited again"))
        assert audit_study(tmp_path, data) == found
    assert audit_study(tmp_path, load(data.store, seed=1)).identity != found.identity
    audit_study(tmp_path, data)
    pairs = tmp_path / PAIRS_FILE
    whole = pairs.read_bytes()
    pairs.unlink()
    audit_study(tmp_path, data)
    assert pairs.read_bytes() == whole
    for damaged in (b"", b"\xff\x00", b"a,b\n", whole + b"1,2\n"):
        pairs.write_bytes(damaged)
        audit_study(tmp_path, data)
        assert pairs.read_bytes() == whole
    (tmp_path / AUDIT_FILE).write_text("{")
    assert read_audit(tmp_path) is None
    assert audit_study(tmp_path, data) == found


def test_processes_that_share_a_folder_audit_it_in_the_same_moment(tmp_path, images, monkeypatch):
    data = load(write_store(tmp_path / "s.h5", images))
    expected = audit_study(tmp_path, data)
    folder = tmp_path / "study"
    folder.mkdir()
    assert not meet(monkeypatch, 2, lambda _: audit_study(folder, data))
    assert read_audit(folder) == expected
    assert {path.name for path in folder.iterdir()} == {AUDIT_FILE, PAIRS_FILE}
