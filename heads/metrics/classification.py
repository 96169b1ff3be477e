"""What a head's class probabilities are worth: accuracy with its interval, and each class for itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.rows.split import groups_of
from features.runtime.errors import BottleneckError
from heads.metrics.intervals import accuracy_interval, wilson_interval
from heads.metrics.scoring import score


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
        accuracy: Share of the rows whose most probable class is the true one.
        accuracy_interval: 95 % interval of it: with ``patients`` by resampling these, else Wilson's over the rows,
            which is too narrow where patients have several images (``heads.metrics.intervals``).
        balanced_accuracy: Mean sensitivity of the classes that have rows.
        loss: Mean of -log(probability of the true class), in nats.
        per_class: In label order.
        confusion: (true class, predicted class) counts.
    """

    rows: int
    patients: int | None
    accuracy: float | None
    accuracy_interval: tuple[float, float] | None
    balanced_accuracy: float | None
    loss: float | None
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the metrics as JSON types."""
        data = asdict(self)
        data["accuracy_interval"] = list(self.accuracy_interval) if self.accuracy_interval else None
        data["per_class"] = [asdict(one) for one in self.per_class]
        data["confusion"] = [list(counts) for counts in self.confusion]
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
    everything = list(range(len(classes)))
    # scikit-learn refuses to count nothing
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    if len(labels):
        from sklearn.metrics import confusion_matrix  # noqa: PLC0415  slow to import, and results are read without it

        confusion = confusion_matrix(labels, probabilities.argmax(1), labels=everything)
    per_class = tuple(_of_class(label, classes[label], probabilities, labels, confusion) for label in everything)
    recalls = [one.sensitivity for one in per_class if one.sensitivity is not None]
    correct, rows = int(np.trace(confusion)), len(labels)
    groups = None if patients is None else groups_of(patients)
    interval = wilson_interval(correct, rows) if rows else None
    if rows and groups is not None:
        interval = accuracy_interval(probabilities.argmax(1) == labels, groups)
    return Metrics(
        rows=rows,
        patients=None if groups is None else len(np.unique(groups)),
        accuracy=_share(correct, rows),
        accuracy_interval=interval,
        balanced_accuracy=float(np.mean(recalls)) if recalls else None,
        loss=score(probabilities, labels).loss if rows else None,
        per_class=per_class,
        confusion=tuple(tuple(int(count) for count in counts) for counts in confusion),
    )


def _of_class(
    label: int,
    name: str,
    probabilities: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    confusion: npt.NDArray[np.int64],
) -> ClassMetrics:
    hits = int(confusion[label, label])
    rows, called, total = int(confusion[label].sum()), int(confusion[:, label].sum()), int(confusion.sum())
    others = total - rows
    area = None
    if rows and others:
        from sklearn.metrics import roc_auc_score  # noqa: PLC0415  as above

        area = float(roc_auc_score(labels == label, probabilities[:, label]))
    return ClassMetrics(
        name=name,
        rows=rows,
        sensitivity=_share(hits, rows),
        specificity=_share(others - (called - hits), others),
        precision=_share(hits, called),
        auc=area,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
