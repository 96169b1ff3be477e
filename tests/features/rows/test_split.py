"""Splits and folds: no patient on two sides, every row in one part, classes in proportion, the seed decides."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from features.images.patients import GROUP_PATTERN, compile_group_pattern, find_patients
from features.rows.split import Split, fold_rows, groups_of, split_rows
from features.runtime.errors import InputError

shares = st.sampled_from([0.0, 0.1, 0.15, 0.2, 0.3, 0.4])
seeds = st.integers(0, 2**31)


@st.composite
def tables(draw):
    """(rows, labels, patients): some patients in several classes, some rows unknown, rows that are not used at all."""
    total = draw(st.integers(80, 200))
    generator = np.random.default_rng(draw(seeds))
    number = draw(st.integers(20, 60))
    owners = generator.integers(0, number, total)
    home = generator.integers(0, 4, number)
    labels = np.where(generator.random(total) < draw(st.sampled_from([0.0, 0.3])), generator.integers(0, 4, total), 0)
    labels = np.where(labels, labels, home[owners]).astype(np.int32)
    known = generator.random(total) >= draw(st.sampled_from([0.0, 0.2, 1.0]))
    names = np.where(known, [f"p{owner}" for owner in owners], "")
    rows = np.flatnonzero(generator.random(total) < 0.9)
    return rows, labels, names


def sides_of(split: Split) -> list[np.ndarray]:
    return [split.train, split.validation, split.test]


def patients_in(names, rows) -> set[str]:
    return set(names[rows].tolist()) - {""}


@given(table=tables(), validation=shares, test=shares, seed=seeds)
@settings(max_examples=50)
def test_every_row_is_in_one_part_and_every_patient_too(table, validation, test, seed):
    rows, labels, names = table
    try:
        split = split_rows(rows, labels, names, validation=validation, test=test, seed=seed)
    except InputError:  # a rare class in few rows; what is refused is tested below
        assume(False)
    parts = sides_of(split)
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    assert all(np.all(np.diff(part) > 0) for part in parts)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not patients_in(names, parts[one]) & patients_in(names, parts[other])
    assert len(split.train)
    assert bool(len(split.validation)) == bool(validation)
    assert bool(len(split.test)) == bool(test)


@given(seed=seeds, validation=shares, test=shares, several=st.booleans())
@settings(max_examples=12)
def test_shares_and_classes_are_met_within_a_few_rows(seed, validation, test, several):
    generator = np.random.default_rng(seed)
    owners = np.repeat(np.arange(200), generator.integers(1, 4, 200))  # 200 patients of one to three images
    labels = (owners % 4).astype(np.int32)
    if several:
        labels = np.where(generator.random(len(owners)) < 0.2, generator.integers(0, 4, len(owners)), labels)
    names = np.array([f"p{owner}" for owner in owners])
    rows = np.arange(len(owners))
    split = split_rows(rows, labels, names, validation=validation, test=test, seed=seed)
    for part, share in ((split.validation, validation), (split.test, test)):
        assert abs(len(part) / len(owners) - share) < 0.05
        if share:
            inside, overall = (np.bincount(labels[some], minlength=4) / len(some) for some in (part, rows))
            assert np.abs(inside - overall).max() < 0.07


@given(table=tables(), seed=seeds)
@settings(max_examples=15)
def test_the_seed_decides_alone(table, seed):
    rows, labels, names = table

    def made(seed):
        return split_rows(rows, labels, names, validation=0.2, test=0.2, seed=seed)

    try:
        first, again, other = made(seed), made(seed), made(seed + 10)
    except InputError:
        assume(False)
    assert first.identity == again.identity
    assert all(np.array_equal(a, b) for a, b in zip(sides_of(first), sides_of(again), strict=True))
    same = all(np.array_equal(a, b) for a, b in zip(sides_of(first), sides_of(other), strict=True))
    assert (first.identity == other.identity) == same


def test_another_seed_makes_another_split():
    names = np.array([f"p{row // 2}" for row in range(200)])
    labels = (np.arange(200) // 2 % 4).astype(np.int32)
    made = [split_rows(np.arange(200), labels, names, validation=0.2, test=0.2, seed=seed) for seed in range(10)]
    assert len({split.identity for split in made}) == 10


def test_the_identity_tells_parts_apart_and_not_only_their_union():
    train, validation, nothing = np.array([0, 1, 2]), np.array([3]), np.array([], np.int64)
    splits = [
        Split(train, validation, nothing),
        Split(train, nothing, validation),
        Split(validation, train, nothing),
        Split(train[:2], np.array([2, 3]), nothing),
    ]
    identities = [split.identity for split in splits]
    assert len(set(identities)) == len(splits)
    assert all(re.fullmatch("[0-9a-f]{16}", identity) for identity in identities)


def test_a_patient_of_several_classes_stays_on_one_side():
    names = np.array([f"p{row // 4}" for row in range(160)])
    labels = np.tile([0, 1, 2, 3], 40).astype(np.int32)  # every patient is in every class
    split = split_rows(np.arange(160), labels, names, validation=0.2, test=0.2, seed=0)
    for part in sides_of(split):
        assert np.bincount(labels[part]).tolist() == [len(part) // 4] * 4
        assert all(np.count_nonzero(names[part] == name) == 4 for name in set(names[part]))


def test_rows_of_unknown_patients_are_not_split_as_that_many_groups(monkeypatch):
    """83,484 of them took more than a minute."""
    monkeypatch.setattr("sklearn.model_selection.StratifiedGroupKFold", None)
    rows = np.arange(83_484)
    split = split_rows(rows, rows % 4, np.full(len(rows), ""), validation=0.1, test=0.1, seed=0)
    assert np.ptp(np.bincount(rows[split.validation] % 4)) <= 2


def test_several_stores_of_the_same_images_are_split_once(monkeypatch):
    generator, asked = np.random.default_rng(0), []
    labels, names = generator.integers(0, 3, 120).astype(np.int32), np.array([f"once-{row // 3}" for row in range(120)])
    split = StratifiedGroupKFold.split
    monkeypatch.setattr(StratifiedGroupKFold, "split", lambda self, *told: asked.append(self) or split(self, *told))

    def folds(seed: int = 5) -> list[list[int]]:
        rows, own = np.arange(120), (labels.copy(), names.copy())
        return [part.tolist() for part in fold_rows(rows, *own, folds=4, seed=seed)]

    assert folds() == folds()
    assert len(asked) == 1
    assert folds(6) != folds()
    labels[:60] = (labels[:60] + 1) % 3
    folds()
    assert len(asked) == 3


def test_unknown_patients_are_each_a_patient_of_its_own():
    names = np.array(["", "a", "", "a", "b"])
    groups = groups_of(names).tolist()
    assert groups[1] == groups[3]
    assert len(set(groups)) == 4
    assert groups_of(np.array([], str)).tolist() == []
    split = split_rows(np.arange(100), np.arange(100) % 2, np.full(100, ""), validation=0.2, test=0.2, seed=0)
    assert [len(part) for part in sides_of(split)] == [60, 20, 20]


def test_numbers_that_stand_for_unknown_rows_meet_no_patients_name():
    names = np.array(["0", "1", "", ""])
    assert len(set(groups_of(names).tolist())) == 4


@given(table=tables(), folds=st.integers(2, 6), seed=seeds)
def test_folds_share_no_patient_and_are_all_of_the_rows(table, folds, seed):
    rows, labels, names = table
    try:
        parts = fold_rows(rows, labels, names, folds=folds, seed=seed)
    except InputError:
        assume(False)
    assert len(parts) == folds
    assert all(len(part) and np.all(np.diff(part) > 0) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    known = [patients_in(names, part) for part in parts]
    assert len(set().union(*known)) == sum(map(len, known))
    again = fold_rows(rows, labels, names, folds=folds, seed=seed)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


GROUPS = "see whether --group-pattern of features.extract takes a patient's id from the names ('' where none is)"
REFUSED = {
    "fewer patients than folds": (
        [0, 0, 1, 1, 1, 0],
        "aabbab",
        {"folds": 3},
        f"at least 3 patients for --folds 3, found 2 patients of 6 images; {GROUPS}, or use fewer --folds",
    ),
    "fewer patients than the validation rows take": (
        [0, 0, 1, 1, 1, 0],
        "aabbab",
        {"validation": 0.15, "test": 0.0},
        "at least 7 patients for --validation-fraction 0.15, found 2 patients of 6 images;"
        f" {GROUPS}, or use a larger --validation-fraction, or --validation STORE",
    ),
    "one patient": (
        [0] * 5 + [1] * 5,
        ["2024"] * 10,
        {"validation": 0.2, "test": 0.5},
        f"at least 2 patients for --test-fraction 0.5, found 1 patient, '2024', of all 10 images; {GROUPS},"
        " or use --test-fraction 0",
    ),
    "few images, of unknown patients": (
        [0, 1, 0, 1],
        [""] * 4,
        {"validation": 0.2, "test": 0.2},
        "at least 5 patients for --test-fraction 0.2, found 4 patients of 4 images; use a larger --test-fraction,"
        " or --test-fraction 0",
    ),
    "a class with fewer images than folds": (
        [0, 0, 0, 1, 1, 1, 1],
        [""] * 7,
        {"folds": 4},
        "at least 4 images of every class for --folds 4, found ape: 3 images; add images of that class, leave it out,"
        " or use fewer --folds",
    ),
    "several of them, the worst first": (
        [0] * 3 + [1] * 9 + [2] + [3] * 4 + [4] * 3 + [5] * 2,
        [*"aab", *map(str, range(9)), "", *"cde", "", *"fgg", "h", ""],
        {"validation": 0.2, "test": 0.2},
        "at least 5 images of every class for --test-fraction 0.2, found cat: 1 image, fox: 2 images of 1 patient and"
        " of unknown ones, ape: 3 images of 2 patients, elk: 3 images of 2 patients and 1 more; add images of these"
        " classes, leave them out, or use a larger --test-fraction, or --test-fraction 0",
    ),
    "a class with too few left for the validation rows": (
        [0] * 30 + [1] * 5,
        [""] * 35,
        {"validation": 0.15, "test": 0.2},
        "at least 5 images of every class for --validation-fraction 0.15, found bat: 4 images; add images of that"
        " class, leave it out, or use a larger --validation-fraction, or --validation STORE",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_split_is_refused_with_classes_counts_and_what_to_do(name):
    labels, patients, asked, message = REFUSED[name]
    table = (np.arange(len(labels)), np.array(labels, np.int32), np.array([*patients]))
    classes = ("ape", "bat", "cat", "dog", "elk", "fox")
    with pytest.raises(InputError) as caught:
        (fold_rows if "folds" in asked else split_rows)(*table, **asked, seed=0, classes=classes)
    assert str(caught.value) == f"split: expected {message}"


def test_classes_without_names_are_numbers():
    with pytest.raises(InputError, match="found class 1: 2 images of 1 patient; "):
        fold_rows(np.arange(6), np.array([0, 0, 0, 0, 1, 1]), np.array([*"abcdee"]), folds=3, seed=0)


def test_patients_of_sizes_that_leave_a_part_empty_are_refused():
    labels = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 1, 0, 1, 0], np.int32)
    patients = np.array([*"012345653410226141"])
    messages = set()
    for seed in range(20):
        try:
            fold_rows(np.arange(18), labels, patients, folds=7, seed=seed)
        except InputError as error:
            messages.add(str(error))
    expected = "patients that can be put into 7 parts for --folds 7, found one part empty"
    assert messages == {f"split: expected {expected}; use another --seed or fewer --folds"}


@pytest.mark.parametrize(
    ("validation", "test", "option"), [(1.0, 0.0, "validation"), (0.2, 1.0, "test"), (0, 2, "test")]
)
def test_a_share_of_everything_is_refused(validation, test, option):
    with pytest.raises(InputError, match=rf"--{option}-fraction: expected a number in \[0, 1\), found "):
        split_rows(np.arange(20), np.zeros(20, np.int32), np.full(20, ""), validation=validation, test=test, seed=0)


@pytest.mark.parametrize("share", [1e-9, 1e-320, 0.0009])
def test_a_share_of_far_less_than_a_row_is_refused_at_once(share):
    labels, patients = np.arange(100, dtype=np.int32) % 2, np.array([f"p{row}" for row in range(100)], object)
    says = r"--validation-fraction: expected a share of one of 100 images, or more, found .*; use a larger --validation"
    with pytest.raises(InputError, match=says):
        split_rows(np.arange(100), labels, patients, validation=share, test=0, seed=0)


def test_a_share_near_everything_leaves_rows_to_train_on():
    split = split_rows(np.arange(40), np.arange(40) % 2, np.full(40, ""), validation=0.0, test=0.95, seed=0)
    assert len(split.train)


@pytest.mark.parametrize(
    ("stem", "pattern", "patient"),
    [
        ("CNV-1016042-1", GROUP_PATTERN, "1016042"),
        ("NORMAL-12-3", GROUP_PATTERN, "12"),
        ("scan_17", GROUP_PATTERN, ""),
        ("CNV-1-2-3", GROUP_PATTERN, ""),
        ("scan_17_b", r"_(\d+)_", "17"),
        ("17b", r"(?P<eye>[a-z])|(?P<patient>\d+)", "17"),
        ("b", r"(?P<eye>[a-z])|(?P<patient>\d+)", ""),
        ("CNV-1016042-1", "", ""),
    ],
)
def test_the_patient_is_where_the_pattern_says(stem, pattern, patient):
    assert find_patients([f"K/{stem}.png"], compile_group_pattern(pattern)).names == (patient,)


@pytest.mark.parametrize(
    ("pattern", "message"), [("(", "a regular expression, found '\\('"), ("a+", "a group \\(...\\)")]
)
def test_a_pattern_that_is_none_is_refused(pattern, message):
    with pytest.raises(InputError, match=f"--group-pattern: expected {message}"):
        compile_group_pattern(pattern)


def test_who_waits_for_a_split_of_many_patients_is_told_why(capsys):
    labels = np.tile(np.arange(2, dtype=np.int32), 6_000)
    patients = np.array([f"p{row // 2}" for row in range(len(labels))], object)
    rows = np.arange(len(labels), dtype=np.int64)
    fold_rows(rows, labels, patients, folds=4, seed=0, classes=("a", "b"))
    assert "splitting 12,000 rows of 6,000 patients into 4 parts" in capsys.readouterr().err
    fold_rows(rows[:400], labels, patients, folds=4, seed=0, classes=("a", "b"))
    assert "splitting" not in capsys.readouterr().err
