"""What a head's class probabilities are worth: accuracy with its interval, and each class for itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.rows.split import groups_of
from features.runtime.errors import BottleneckError
from heads.metrics.intervals import accuracy_interval, wilson_interval
from heads.metrics.scoring import class_areas, score

MOST_COUNTED = 200
"""Classes up to which the whole confusion matrix is kept: of 5,000 it would have 25 million numbers."""


@dataclass(frozen=True, kw_only=True)
class ConfusionPair:
    """How many rows of a class were called so.

    Attributes:
        true: The class that the rows are of.
        called: The class that they were called, perhaps the same.
        rows: How many, at least one.
    """

    true: str
    called: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class against all others. Shares are in [0, 1], and None where there is nothing to divide by.

    Attributes:
        name: The class.
        rows: Rows of this class.
        sensitivity: Share of the rows of this class that were called so (recall).
        specificity: Share of the other rows that were not called so.
        precision: Share of the rows called so that are of this class.
        auc: Area under the ROC curve of this class's probability; None where all rows, or none, are of this class.
    """

    name: str
    rows: int
    sensitivity: float | None
    specificity: float | None
    precision: float | None
    auc: float | None


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """How well a head does on some rows, one an image.

    Attributes:
        rows: Number of rows.
        patients: Number of patients; a row whose patient is unknown counts as one. None where nobody asked.
        patients_unknown: Rows whose patient is unknown.
        accuracy: Share of the rows whose most probable class is the true one.
        accuracy_interval: 95 % interval of it: with ``patients`` by resampling these, else Wilson's over the rows,
            which is too narrow where patients have several images (``heads.metrics.intervals``).
        balanced_accuracy: Mean sensitivity of the classes that have rows.
        loss: Mean of -log(probability of the true class), in nats.
        per_class: In label order.
        confusion: (true class, predicted class) counts; empty for more than ``MOST_COUNTED`` classes.
        pairs: The counts that are not 0, the largest first: all of them, however many classes there are.
    """

    rows: int
    patients: int | None
    patients_unknown: int
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    balanced_accuracy: float | None
    loss: float | None
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    pairs: tuple[ConfusionPair, ...] = ()

    @property
    def confused(self) -> tuple[ConfusionPair, ...]:
        """The pairs of different classes, those that were confused most often first."""
        return tuple(pair for pair in self.pairs if pair.true != pair.called)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes that no row is of."""
        return tuple(one.name for one in self.per_class if not one.rows)

    def to_dict(self) -> dict[str, Any]:
        """Returns the metrics as JSON types: with ``pairs`` where there are too many classes for ``confusion``."""
        data = asdict(self)
        data["accuracy_interval"] = list(self.accuracy_interval) if self.accuracy_interval else None
        data["per_class"] = [asdict(one) for one in self.per_class]
        data["confusion"] = [list(counts) for counts in self.confusion]
        if self.confusion:
            del data["pairs"]  # the matrix has them
        return data


def measure(
    probabilities: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    classes: tuple[str, ...],
    *,
    patients: npt.NDArray[Any] | None = None,
) -> Metrics:
    """Measures class probabilities against the true classes.

    Args:
        probabilities: (rows, classes); with several views, their average.
        labels: (rows,) index of the true class.
        classes: Names, in label order.
        patients: (rows,) patient of each row, '' where unknown; decides the units of the interval.

    Raises:
        BottleneckError: A probability is not finite.
    """
    assert probabilities.shape == (len(labels), len(classes)), f"{probabilities.shape=} {len(labels)=} {classes=}"
    if not np.isfinite(probabilities).all():
        raise BottleneckError("the head's probabilities are not finite")
    called = probabilities.argmax(1)
    counts = _Counts.of(labels, called, len(classes))
    areas = class_areas(probabilities[None], labels)[:, 0].tolist()
    per_class = tuple(_of_class(label, name, areas[label], counts) for label, name in enumerate(classes))
    recalls = [one.sensitivity for one in per_class if one.sensitivity is not None]
    correct, rows = int(counts.right.sum()), len(labels)
    groups = None if patients is None else groups_of(patients)
    interval = wilson_interval(correct, rows) if rows else None
    if rows and groups is not None:
        interval = accuracy_interval(called == labels, groups)
    return Metrics(
        rows=rows,
        patients=None if groups is None else len(np.unique(groups)),
        patients_unknown=0 if patients is None else int(np.count_nonzero(patients == "")),
        accuracy=_share(correct, rows),
        accuracy_interval=interval,
        balanced_accuracy=float(np.mean(recalls)) if recalls else None,
        loss=score(probabilities, labels).loss if rows else None,
        per_class=per_class,
        confusion=_matrix(labels, called, len(classes)) if len(classes) <= MOST_COUNTED else (),
        pairs=_pairs(labels, called, classes),
    )


@dataclass(frozen=True)
class _Counts:
    """Rows of each class, (classes,): that are of it, that were called so, and both."""

    true: npt.NDArray[np.int64]
    called: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]

    @classmethod
    def of(cls, labels: npt.NDArray[Any], called: npt.NDArray[Any], classes: int) -> _Counts:
        return cls(*(np.bincount(some, minlength=classes) for some in (labels, called, labels[called == labels])))


def _matrix(labels: npt.NDArray[Any], called: npt.NDArray[Any], classes: int) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, called), 1)
    return tuple(map(tuple, counts.tolist()))


def _pairs(labels: npt.NDArray[Any], called: npt.NDArray[Any], classes: Sequence[str]) -> tuple[ConfusionPair, ...]:
    found, counts = np.unique(np.stack([labels, called]), axis=1, return_counts=True)
    return _largest_first(found, counts, classes)


def pairs_of(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> tuple[ConfusionPair, ...]:
    """Returns ``Metrics.pairs`` of a ``Metrics.confusion`` that is not empty; ``classes`` are in label order."""
    counts = np.asarray(confusion, np.int64)
    found = np.stack(np.nonzero(counts))
    return _largest_first(found, counts[*found], classes)


def _largest_first(
    found: npt.NDArray[Any], counts: npt.NDArray[Any], classes: Sequence[str]
) -> tuple[ConfusionPair, ...]:
    """Pairs of labels, (2, pairs) in their order; of as many rows the first one comes first."""
    order = np.argsort(-counts, kind="stable")
    return tuple(
        ConfusionPair(true=classes[true], called=classes[other], rows=rows)
        for (true, other), rows in zip(found[:, order].T.tolist(), counts[order].tolist(), strict=True)
    )


def _of_class(label: int, name: str, area: float, counts: _Counts) -> ClassMetrics:
    rows, called, hits = (int(some[label]) for some in (counts.true, counts.called, counts.right))
    others = int(counts.true.sum()) - rows
    return ClassMetrics(
        name=name,
        rows=rows,
        sensitivity=_share(hits, rows),
        specificity=_share(others - (called - hits), others),
        precision=_share(hits, called),
        auc=None if math.isnan(area) else area,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
