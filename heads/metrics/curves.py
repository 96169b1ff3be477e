"""Curves behind the numbers of a classification: what probabilities separate, and whether they can be believed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BINS = 10


class Roc(NamedTuple):
    """A receiver operating characteristic: at falling thresholds, both shares in [0, 1]."""

    false_positives: Floats
    true_positives: Floats


class Reliability(NamedTuple):
    """How often a head is right, by how sure it is; bins without rows are left out.

    Attributes:
        confidence: (bins,) mean probability of the called class.
        accuracy: (bins,) share of rows classified correctly.
        rows: (bins,) rows in each.
        error: Expected calibration error: mean |accuracy - confidence| over the rows (Guo et al. 2017,
            arXiv:1706.04599).
    """

    confidence: Floats
    accuracy: Floats
    rows: npt.NDArray[np.int64]
    error: float


def roc(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], label: int) -> Roc | None:
    """Returns the curve of one class against the others; None where all rows, or none, are of this class."""
    own = labels == label
    if not len(labels) or own.all() or not own.any():
        return None
    from sklearn.metrics import roc_curve

    false_positives, true_positives, _ = roc_curve(own, probabilities[:, label])
    return Roc(false_positives, true_positives)


def reliability(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], *, bins: int = BINS) -> Reliability:
    """Returns how often the called class is right, in equal bins of its probability.

    Args:
        probabilities: (rows, classes), at least one row.
        labels: (rows,) index of the true class.
        bins: Number of bins over [0, 1].
    """
    sure = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    rows = np.bincount(place, minlength=bins)
    filled = rows > 0
    rows = rows[filled]
    confidence = np.bincount(place, weights=sure, minlength=bins)[filled] / rows
    accuracy = np.bincount(place, weights=right, minlength=bins)[filled] / rows
    error = float(np.abs(accuracy - confidence) @ rows / rows.sum())
    return Reliability(confidence, accuracy, rows, error)
