"""Train, validation and test rows, and folds, by patient.

Rows of one patient never fall on both sides, even where the patient appears in several classes: published scores on
OCT2017 are 5 to 30 points too high where this is ignored (Tampu et al. 2022, doi:10.1038/s41597-022-01618-6).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from features.runtime.command import say
from features.runtime.errors import InputError
from features.runtime.text import counted, listed, printable
from features.store.schema import Rows

SEED = 0
VALIDATION_FRACTION = TEST_FRACTION = 0.15
"""The split of a search that is not told another one."""
_LEAST = 0.1
"""Of a row: a share of less is a slip. Of one that is a little less than a row it is said how many would do."""
_NAMED = 4
"""Classes that a refusal names."""
_LONG = 20_000
"""Patients times parts from which on dealing them out takes more than about a second, so that it is said."""


@dataclass(frozen=True)
class Split:
    """Row indices, each sorted; no row and no patient is in two of them."""

    train: Rows
    validation: Rows
    test: Rows

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that stand for which row is in which part."""
        digest = hashlib.sha256()
        for rows in (self.train, self.validation, self.test):
            digest.update(len(rows).to_bytes(8, "little") + rows.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def groups_of(patients: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Numbers the patients; a row whose patient is unknown is a group of its own. Shape (rows,)."""
    names = [name or f"\0{row}" for row, name in enumerate(patients.tolist())]
    return np.unique(names, return_inverse=True)[1].astype(np.int64) if names else np.zeros(0, np.int64)


def split_rows(
    rows: Rows,
    labels: npt.NDArray[np.int32],
    patients: npt.NDArray[Any],
    *,
    validation: float,
    test: float,
    seed: int,
    classes: Sequence[str] = (),
) -> Split:
    """Splits rows by patient, stratified by class.

    Args:
        rows: Row indices to split, e.g. the usable ones of a store.
        labels: (all rows,) class index of every row of the store.
        patients: (all rows,) patient ids, '' where unknown.
        validation: Share of the rows for validation, 0 for none.
        test: Share of the rows for the test, 0 for none.
        seed: Decides the split, together with the rows.
        classes: Names, in label order, for what is refused; else classes are named by their numbers.

    Returns:
        The three parts; their shares are met within a tenth, as far as the patients allow.

    Raises:
        InputError: There are too few patients, or images of a class, for the parts asked for.
    """
    table = _Table(labels, patients, classes)
    rest, tested = _part(rows, table, share=test, seed=seed, name="test", of_all=test)
    share = validation / (1 - test) if test < 1 else 0.0
    train, validated = _part(rest, table, share=share, seed=seed + 1, name="validation", of_all=validation)
    return Split(train, validated, tested)


def fold_rows(
    rows: Rows,
    labels: npt.NDArray[np.int32],
    patients: npt.NDArray[Any],
    *,
    folds: int,
    seed: int,
    classes: Sequence[str] = (),
) -> list[Rows]:
    """Splits rows into ``folds`` parts by patient, stratified by class; each sorted, together all of ``rows``.

    See ``split_rows`` for the other arguments.

    Raises:
        InputError: There are fewer patients, or fewer rows of some class, than folds.
    """
    return _folds(rows, _Table(labels, patients, classes), _Need(folds, f"--folds {folds}", "fewer --folds"), seed=seed)


@dataclass(frozen=True)
class _Table:
    """What is known of every row of a store: label, patient; and the classes' names, which may be none."""

    labels: npt.NDArray[np.int32]
    patients: npt.NDArray[Any]
    classes: Sequence[str]

    def name(self, label: int) -> str:
        return printable(self.classes[label]) if self.classes else f"class {label}"

    def described(self, label: int, rows: Rows) -> str:
        """A class with how many images and patients it has among some rows."""
        own = self.patients[rows[self.labels[rows] == label]]
        known = set(own.tolist()) - {""}
        images = f"{self.name(label)}: {counted(len(own), 'image')}"
        if np.any(own == ""):
            return f"{images} of {counted(len(known), 'patient')} and of unknown ones" if known else images
        return f"{images} of {counted(len(known), 'patient')}"


@dataclass(frozen=True)
class _Need:
    """How many patients, and images of every class, a part or a number of folds takes: why, and what takes fewer."""

    folds: int
    why: str
    otherwise: str


def _folds(rows: Rows, table: _Table, need: _Need, *, seed: int) -> list[Rows]:
    labels, folds = table.labels[rows], need.folds
    groups = groups_of(table.patients[rows])
    patients_known = len(np.unique(groups))
    _require_patients(rows, patients_known, table, need)
    _require_images(rows, table, need)
    fold_of = _dealt(_Hand.of(labels, groups), folds, seed)
    parts = [np.sort(rows[fold_of == fold]) for fold in range(folds)]
    if not all(map(len, parts)):  # a few patients of very different sizes
        expected, found = f"patients that can be put into {folds} parts for {need.why}", "one part empty"
        raise InputError("split", expected=expected, found=found, hint=f"use another --seed or {need.otherwise}")
    return parts


@dataclass(frozen=True)
class _Hand:
    """Labels and patients' numbers (rows,) to split; the same hand is known by its digest."""

    digest: bytes
    labels: npt.NDArray[np.int32] = field(compare=False)
    groups: npt.NDArray[np.int64] = field(compare=False)

    @classmethod
    def of(cls, labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int64]) -> Self:
        digest = hashlib.sha256(labels.astype("<i8").tobytes() + groups.astype("<i8").tobytes())
        return cls(digest.digest(), labels, groups)


@lru_cache(maxsize=8)
def _dealt(hand: _Hand, folds: int, seed: int) -> npt.NDArray[np.int32]:
    """The fold of each row: made once for all stores of the same images, as it takes patients times classes."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow for an error line

    how = {"n_splits": folds, "shuffle": True, "random_state": seed}
    groups = len(np.unique(hand.groups))
    if groups == len(hand.groups):  # by groups the same, in minutes for 80,000 rows
        pairs = StratifiedKFold(**how).split(hand.labels, hand.labels)
    else:
        if groups * folds > _LONG:
            say(f"splitting {counted(len(hand.groups), 'row')} of {groups:,} patients into {folds} parts")
        pairs = StratifiedGroupKFold(**how).split(hand.labels, hand.labels, hand.groups)
    fold_of = np.zeros(len(hand.labels), np.int32)
    for fold, (_, inside) in enumerate(pairs):
        fold_of[inside] = fold
    return fold_of


def _require_patients(rows: Rows, found: int, table: _Table, need: _Need) -> None:
    """Refuses fewer patients than parts. A row whose patient is unknown is a patient of its own."""
    if found >= need.folds:
        return
    told = f"{counted(found, 'patient')} of {counted(len(rows), 'image')}"
    hints = [f"use {need.otherwise}"]
    if found < len(rows):
        hints.insert(
            0, "see whether --group-pattern of features.extract takes a patient's id from the names ('' where none is)"
        )
    if found == 1 and len(rows) > 1:
        told = f"1 patient, {printable(str(table.patients[rows[0]]))!r}, of all {len(rows):,} images"
    raise InputError(
        "split", expected=f"at least {need.folds} patients for {need.why}", found=told, hint=", or ".join(hints)
    )


def _require_images(rows: Rows, table: _Table, need: _Need) -> None:
    """Refuses classes with fewer images than parts, those with the fewest named first."""
    counts = np.bincount(table.labels[rows])
    few = [int(label) for label in np.argsort(counts, kind="stable") if 0 < counts[label] < need.folds]
    if few:
        found = listed((table.described(label, rows) for label in few), _NAMED)
        them = "that class" if len(few) == 1 else "these classes"
        raise InputError(
            "split",
            expected=f"at least {need.folds} images of every class for {need.why}",
            found=found,
            hint=f"add images of {them}, leave {'it' if len(few) == 1 else 'them'} out, or use {need.otherwise}",
        )


def _part(rows: Rows, table: _Table, *, share: float, seed: int, name: str, of_all: float) -> tuple[Rows, Rows]:
    """Takes about ``share`` of the rows out, ``of_all`` of those that there were first: (the others, those taken)."""
    if share <= 0:
        return np.sort(rows), rows[:0]
    option = f"--{name}-fraction"
    if not 0 < share < 1:
        raise InputError(option, expected="a number in [0, 1)", found=of_all)
    without = f"{option} 0" if name == "test" else "--validation STORE"
    otherwise = f"a larger {option}, or {without}"
    if 0 < share * len(rows) < _LEAST:
        expected = f"a share of one of {counted(len(rows), 'image')}, or more"
        raise InputError(option, expected=expected, found=f"{of_all:g}", hint=f"use {otherwise}")
    # Folds are the grouped, stratified tool that scikit-learn has; enough of them add up to any share.
    fewest = max(2, int(1 / (1.1 * share)))  # one of fewer is more than a tenth too large
    folds = next(folds for folds in count(fewest) if abs(_whole(share, folds) / folds - share) <= share / 10)
    need = _Need(folds, f"{option} {of_all:g}", otherwise if folds > 2 else without)
    parts = _folds(rows, table, need, seed=seed)
    taken = np.sort(np.concatenate(parts[: _whole(share, folds)]))
    return np.setdiff1d(rows, taken), taken


def _whole(share: float, folds: int) -> int:
    """The number of folds that is nearest to ``share`` of them; at least one is taken and one left."""
    return min(folds - 1, max(1, round(share * folds)))
