"""Folds by group, stratified by class: which one each group goes to.

They are those of scikit-learn's ``StratifiedGroupKFold``, bit by bit, as recorded splits have to stay what they are. It
compares the spreads of all classes over all folds anew for each fold that a group might go to: of 83,484 rows of 30,000
patients half a minute, and minutes with many classes or unknown patients. Here only the classes of that group are
looked at anew. Spreads differ in the last bits by the order in which numbers are added up, and the lesser one decides:
so they are added up in the order in which ``np.std`` and ``np.mean`` do that there.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

_VALUES = 2**20
"""Counts that are held at once of the groups' classes."""
_NEAR, _NEARER = 1e-5, 1e-8
"""``np.isclose``: how far two spreads are apart that count as equal, of the second one and in itself."""

_Floats = npt.NDArray[np.float64]
_Numbers = npt.NDArray[np.int64]


def grouped_folds(
    labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int64], *, folds: int, seed: int
) -> npt.NDArray[np.int32]:
    """Returns the fold of each row: groups stay together, classes are spread as evenly as that allows.

    Groups whose rows are of the fewest classes are placed first, the larger ones before the smaller ones, in the order
    that the seed gives them where they are alike. Each goes to where the classes are then spread most evenly, or to the
    smaller fold.

    Args:
        labels: (rows,) class of each.
        groups: (rows,) group of each.
        folds: How many, 2 or more.
        seed: Decides the order of groups that are alike.
    """
    _, label_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    group_of = np.unique(groups, return_inverse=True)[1]
    cells, rows = np.unique(group_of * len(sizes) + label_of, return_counts=True)
    owners, found = np.divmod(cells, len(sizes))
    begins = np.searchsorted(owners, np.arange(owners[-1] + 2))
    order = np.arange(len(begins) - 1)
    np.random.RandomState(seed).shuffle(order)
    order = order[np.argsort(-_spreads_of_groups(begins, found, rows, len(sizes))[order], kind="stable")]
    dealt, fold_of = _Folds(folds, sizes), np.zeros(len(order), np.int32)
    bounds = begins.tolist()
    for group in order.tolist():
        inside = slice(bounds[group], bounds[group + 1])
        fold_of[group] = dealt.place(found[inside], rows[inside])
    return fold_of[group_of]


def _spreads_of_groups(begins: _Numbers, found: _Numbers, rows: _Numbers, classes: int) -> _Floats:
    """Standard deviation of each group's numbers of rows over all classes."""
    groups, step = len(begins) - 1, max(1, _VALUES // classes)
    spreads = np.empty(groups)
    for start in range(0, groups, step):
        stop = min(start + step, groups)
        inside = slice(begins[start], begins[stop])
        counts = np.zeros((stop - start, classes))
        counts[np.repeat(np.arange(stop - start), np.diff(begins[start : stop + 1])), found[inside]] = rows[inside]
        spreads[start:stop] = np.std(counts, axis=1)
    return spreads


class _Folds:
    """Folds that groups are put into, one after another."""

    def __init__(self, folds: int, sizes: _Numbers) -> None:
        """Makes empty folds for classes of so many rows each."""
        self._sizes = sizes
        self._each = np.arange(folds)
        self._rows = [0] * folds
        self._counts = np.zeros((folds, len(sizes)))
        self._shares = np.zeros((folds, len(sizes)))  # what part of a class's rows each fold has
        self._spreads = np.zeros((folds, len(sizes)))  # of each class over the folds; a row for each fold to choose

    def place(self, classes: _Numbers, rows: _Numbers) -> int:
        """Puts in a group that has some rows of each of some classes; returns its fold."""
        spreads = self._spreads_with(classes, rows)
        self._spreads[:, classes] = spreads
        means = np.add.reduce(self._spreads, axis=1) / len(self._sizes)
        best = self._best(means.tolist())
        self._spreads[:, classes] = spreads[best]
        self._counts[best, classes] += rows
        self._shares[best, classes] = self._counts[best, classes] / self._sizes[classes]
        self._rows[best] += int(rows.sum())
        return best

    def _spreads_with(self, classes: _Numbers, rows: _Numbers) -> _Floats:
        """(folds, classes) standard deviation of each class's shares, if a group went to each of the folds."""
        folds = len(self._each)
        shares = np.repeat(self._shares[:, None, classes], folds, axis=1)
        shares[self._each, self._each] = (self._counts[:, classes] + rows) / self._sizes[classes]
        apart = shares.reshape(folds, -1)
        apart -= self._sums(apart) / folds
        apart *= apart
        return np.sqrt(self._sums(apart) / folds).reshape(folds, -1)

    def _sums(self, apart: _Floats) -> _Floats:
        """Sums over the folds, added up as NumPy does in a table of all classes: otherwise where that has but one."""
        sums: _Floats = np.add.reduce(apart, axis=0) if len(self._sizes) > 1 else np.add.reduce(apart.T.copy(), axis=1)
        return sums

    def _best(self, means: list[float]) -> int:
        """The fold with the least mean, and the fewest rows where that of another one is near."""
        best, least, fewest = 0, math.inf, 0
        for fold, mean in enumerate(means):
            near = abs(mean - least) <= _NEARER + _NEAR * least and self._rows[fold] < fewest
            if mean < least or near:
                best, least, fewest = fold, mean, self._rows[fold]
        return best
