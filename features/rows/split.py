"""Train, validation and test rows, and folds, by patient.

Rows of one patient never fall on both sides, even where the patient appears in several classes: published scores on
OCT2017 are 5 to 30 points too high where this is ignored (Tampu et al. 2022, doi:10.1038/s41597-022-01618-6).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.store.schema import Rows

SEED = 0
VALIDATION_FRACTION = TEST_FRACTION = 0.15
"""The split of a search that is not told another one."""


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
) -> Split:
    """Splits rows by patient, stratified by class.

    Args:
        rows: Row indices to split, e.g. the usable ones of a store.
        labels: (all rows,) class index of every row of the store.
        patients: (all rows,) patient ids, '' where unknown.
        validation: Share of the rows for validation, 0 for none.
        test: Share of the rows for the test, 0 for none.
        seed: Decides the split, together with the rows.

    Returns:
        The three parts; their shares are met within a tenth, as far as the patients allow.

    Raises:
        InputError: There are too few patients for the parts asked for.
    """
    rest, tested = _part(rows, labels, patients, share=test, seed=seed, name="test")
    train, validated = _part(rest, labels, patients, share=validation / (1 - test), seed=seed + 1, name="validation")
    return Split(train, validated, tested)


def fold_rows(
    rows: Rows, labels: npt.NDArray[np.int32], patients: npt.NDArray[Any], *, folds: int, seed: int
) -> list[Rows]:
    """Splits rows into ``folds`` parts by patient, stratified by class; each sorted, together all of ``rows``.

    Raises:
        InputError: There are fewer patients, or fewer rows of some class, than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # noqa: PLC0415  slow for an error line

    groups = groups_of(patients[rows])
    patients_known = len(np.unique(groups))
    fewest = min(np.bincount(labels[rows])[np.unique(labels[rows])], default=0)
    if folds > patients_known:
        raise InputError("split", expected=f"at least {folds} patients", found=patients_known)
    if folds > fewest:
        raise InputError("split", expected=f"at least {folds} images of every class", found=fewest)
    if patients_known == len(rows):  # one row each: by groups it would be the same, in minutes for 80,000 rows
        pairs = StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, labels[rows])
    else:
        pairs = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(rows, labels[rows], groups)
    parts = [np.sort(rows[inside]) for _, inside in pairs]
    empty = next((number for number, part in enumerate(parts) if not len(part)), None)
    if empty is not None:
        raise InputError("split", expected=f"patients enough for {folds} parts", found=f"part {empty} empty")
    return parts


def _part(
    rows: Rows, labels: npt.NDArray[np.int32], patients: npt.NDArray[Any], *, share: float, seed: int, name: str
) -> tuple[Rows, Rows]:
    """Takes about ``share`` of the rows out: (the others, those taken)."""
    if share <= 0:
        return np.sort(rows), rows[:0]
    if not 0 < share < 1:
        raise InputError(f"--{name}-fraction", expected="a number in [0, 1)", found=share)
    # Folds are the grouped, stratified tool that scikit-learn has; enough of them add up to any share.
    folds = next(folds for folds in count(2) if abs(_whole(share, folds) / folds - share) <= share / 10)
    parts = fold_rows(rows, labels, patients, folds=folds, seed=seed)
    taken = np.sort(np.concatenate(parts[: _whole(share, folds)]))
    return np.setdiff1d(rows, taken), taken


def _whole(share: float, folds: int) -> int:
    """The number of folds that is nearest to ``share`` of them; at least one is taken and one left."""
    return min(folds - 1, max(1, round(share * folds)))
