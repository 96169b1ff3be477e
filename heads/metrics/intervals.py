"""95 % intervals and standard errors of means and of their differences, patients as units.

Images of one patient resemble each other, so an interval over images is too narrow; resampling patients with all of
their images is not (the cluster bootstrap: Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x). Of few patients
its percentiles are too narrow, too: of ten and of two, a difference that is none was called one in 8% and in 37% of
cases that were made up. So the percentiles are expanded as Student's t asks for (Hesterberg 2015,
doi:10.1080/00031305.2015.1089789), and the interval holds that of the standard error by t as well, and the one that it
would have if each image were another patient's. With hundreds of patients this changes next to nothing.

The standard error is the jackknife's, which leaves out one patient after the other: else one with many images hides
its own. Of a share, the interval by it is Wilson's, of as many rows as have that error (Korn and Graubard 1998): where
few rows are wrong, an interval that reaches as far up as down is too high. ``benchmarks/intervals.py`` counts how often
all of this holds what is true.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
SEED = 0
"""The same rows give the same interval."""
_AT_ONCE = 500
_NORMAL = 1.959964
"""Standard errors of a normal distribution that 95% lie within."""
_ROUNDING = 1e-9
Interval = tuple[float, float]


def wilson_interval(correct: int, rows: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share: unlike the normal one it is sound near 1 and for few rows.

    Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, rows).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_interval(right: npt.NDArray[np.bool_], patients: npt.NDArray[np.int64]) -> Interval:
    """Returns the 95% interval of the share of rows classified correctly.

    Where every row is classified correctly, or none, it is Wilson's over the patients; where not all rows of the only
    patient are, it is all that a share can be.

    Args:
        right: (rows,), at least one.
        patients: (rows,) number of each row's patient, see ``features.rows.split.groups_of``.
    """
    count = len(np.unique(patients))
    if right.all() or not right.any():
        return wilson_interval(count if right.all() else 0, count)
    if count < 2:
        return 0.0, 1.0
    percentiles, half = _by_patients(right, patients)
    share = float(right.mean())
    by_error = _as_wilson(share, max(half**2 / (share * (1 - share)), _NORMAL**2 / len(right)))
    return _within(0.0, 1.0, percentiles, by_error)


def difference_interval(
    mine: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], patients: npt.NDArray[np.int64]
) -> Interval:
    """Returns the 95% interval of the difference of two heads' accuracies on the same rows, which are paired.

    Of one patient nothing is known. Where both call every row alike, another patient's may be called differently as
    often as Wilson's interval of none among as many patients says.

    Args:
        mine: (rows,) whether the one head was right, at least one.
        other: (rows,) whether the other was.
        patients: (rows,) number of each row's patient.
    """
    gains = mine.astype(float) - other
    count = len(np.unique(patients))
    if count > 1 and not gains.any():
        _, most = wilson_interval(0, count)
        return -most, most
    return _within(-1.0, 1.0, mean_interval(gains, patients))


def mean_interval(values: npt.NDArray[np.floating], patients: npt.NDArray[np.int64]) -> Interval:
    """Returns the 95% interval of the mean over rows.

    Of one patient nothing is known: it is all numbers then.

    Args:
        values: (rows,) a number of each row, at least one.
        patients: (rows,) number of each row's patient, see ``features.rows.split.groups_of``.
    """
    if len(np.unique(patients)) < 2:
        return -math.inf, math.inf
    percentiles, half = _by_patients(values, patients)
    half, mean = max(half, _NORMAL * float(values.std(ddof=1)) / math.sqrt(len(values))), float(values.mean())
    return _within(-math.inf, math.inf, percentiles, (mean - half, mean + half))


def paired_difference(
    mine: npt.NDArray[np.floating], other: npt.NDArray[np.floating], patients: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """Returns the mean of ``mine - other`` over rows, and its standard error with patients as units.

    Where all rows are one patient's, rows are the units: patients would have no error at all.

    Args:
        mine: (rows,) a score of each row.
        other: (rows,) of the same rows.
        patients: (rows,) number of each row's patient, see ``features.rows.split.groups_of``.
    """
    differences = mine - other
    mean = float(differences.mean())
    units = patients if len(np.unique(patients)) > 1 else np.arange(len(differences))
    deviations = _of_patients(differences - mean, units)
    scale = len(deviations) / max(1, len(deviations) - 1)
    return mean, float(np.sqrt(scale * np.sum(deviations**2)) / len(differences))


def is_within(behind: float, error: float) -> bool:
    """Whether a difference is within its standard error.

    The two are the same number where only one patient's rows differ and all patients have equally many, as rows without
    patients do. That counts as within, whatever the last bit of either says.
    """
    return behind <= error * (1 + _ROUNDING)


def _as_wilson(share: float, per_row: float) -> Interval:
    """Wilson's interval by the square of a distribution's quantile over the number of rows, which may be no whole."""
    middle, spread = share + per_row / 2, math.sqrt(per_row * share * (1 - share) + per_row**2 / 4)
    return (middle - spread) / (1 + per_row), (middle + spread) / (1 + per_row)


def _by_patients(values: npt.NDArray[Any], patients: npt.NDArray[np.int64]) -> tuple[Interval, float]:
    """Expanded percentiles of the mean over rows, patients as units; and half of the interval by Student's t."""
    from scipy.stats import norm, t

    sums = _of_patients(values, patients)
    rows = _of_patients(np.ones(len(values)), patients)
    count, mean, total = len(rows), float(sums.sum() / rows.sum()), float(rows.sum())
    quantile = float(t.ppf(0.975, count - 1))
    tail = 100 * float(norm.cdf(-math.sqrt(count / (count - 1)) * quantile))
    low, high = np.percentile(_resampled(sums, rows), (tail, 100 - tail))
    without = (sums - mean * rows) / (total - rows)  # by how much the mean falls where a patient is left out
    return (float(low), float(high)), quantile * math.sqrt((count - 1) / count) * float(np.linalg.norm(without))


def _within(least: float, most: float, *intervals: Interval) -> Interval:
    """What holds all of the intervals, cut at what is possible."""
    lows, highs = zip(*intervals, strict=True)
    return max(least, min(lows)), min(most, max(highs))


def _of_patients(values: npt.NDArray[Any], patients: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Sums over the rows of each patient."""
    sums = np.bincount(np.unique(patients, return_inverse=True)[1], weights=values)
    return sums.astype(np.float64)


def _resampled(sums: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over rows in each of ``RESAMPLES`` draws of as many patients.

    Patients that are alike in both numbers are counted, not drawn one by one: that is the same draw, and most are.
    """
    kinds, of_kind = np.unique(np.stack([sums, rows]), axis=1, return_counts=True)
    shares = of_kind / len(rows)
    generator = np.random.default_rng(SEED)
    found = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        times = generator.multinomial(len(rows), shares, size=min(_AT_ONCE, RESAMPLES - start))
        found.append(times @ kinds[0] / (times @ kinds[1]))
    return np.concatenate(found)
