"""95 % intervals of accuracies and of their differences, over images or over patients.

Images of one patient resemble each other, so an interval over images is too narrow; resampling patients with all of
their images is not (the cluster bootstrap: Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). Percentile
intervals; where these degenerate, because every image is called rightly or none, Wilson's over the patients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
SEED = 0
"""The same rows give the same interval."""
_AT_ONCE = 500
Interval = tuple[float, float]


def wilson_interval(correct: int, rows: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share: unlike the normal one it is sound near 1 and for few rows.

    Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    from scipy.stats import binomtest  # noqa: PLC0415  slow to import, and results are read without it

    interval = binomtest(correct, rows).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_interval(right: npt.NDArray[np.bool_], patients: npt.NDArray[np.int64]) -> Interval:
    """Returns the 95% interval of the share of rows called rightly.

    Args:
        right: (rows,), at least one.
        patients: (rows,) number of each row's patient, see ``features.rows.split.groups_of``.
    """
    if right.all() or not right.any():
        count = len(np.unique(patients))
        return wilson_interval(count if right.all() else 0, count)
    hits, rows = _of_patients(right, patients), _of_patients(np.ones(len(right)), patients)
    return _percentiles([times @ hits / (times @ rows) for times in _resamples(len(rows))])


def difference_interval(
    mine: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], patients: npt.NDArray[np.int64]
) -> Interval:
    """Returns the 95% interval of the difference of two heads' accuracies on the same rows: a paired bootstrap.

    Args:
        mine: (rows,) whether the one head was right, at least one.
        other: (rows,) whether the other was.
        patients: (rows,) number of each row's patient.
    """
    gains = _of_patients(mine.astype(float) - other, patients)
    rows = _of_patients(np.ones(len(mine)), patients)
    return _percentiles([times @ gains / (times @ rows) for times in _resamples(len(rows))])


def _of_patients(values: npt.NDArray[Any], patients: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Sums over the rows of each patient."""
    sums = np.bincount(np.unique(patients, return_inverse=True)[1], weights=values)
    return sums.astype(np.float64)


def _resamples(patients: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yields how often each patient is drawn, (resamples, patients), in chunks."""
    generator = np.random.default_rng(SEED)
    for start in range(0, RESAMPLES, _AT_ONCE):
        count = min(_AT_ONCE, RESAMPLES - start)
        yield generator.multinomial(patients, np.full(patients, 1 / patients), size=count).astype(np.float64)


def _percentiles(chunks: list[npt.NDArray[np.float64]]) -> Interval:
    low, high = np.percentile(np.concatenate(chunks), (2.5, 97.5))
    return float(low), float(high)
