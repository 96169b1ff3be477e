"""How a head is scored: the same for the solo run, the fused bank, the study and ``heads.evaluate``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from features.rows.feed import Feed
from features.runtime.progress import OnProgress, unwatched
from features.runtime.stopping import heeding_stops

PROBABILITY_FLOOR = 1e-7
DIVERGED = "diverged"
"""How the reason begins why a head failed whose loss or weights are no longer finite."""
EPOCH_VIEW = 0
"""The view that epochs are scored on: a row's first, mostly the image as it is. What a training ends with is scored on
all of them."""
Objective = Literal["accuracy", "balanced_accuracy", "auc", "loss"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
"""What heads can be ranked by; of ``loss`` less is better."""
Probabilities = npt.NDArray[np.float32]
"""(rows, classes), each row summing to 1."""


class Scores(NamedTuple):
    """How well many heads do on the same rows: arrays of one shape, NaN where a probability is or there are no rows.

    Attributes:
        loss: As in ``Score``.
        accuracy: As in ``Score``.
        ranking_score: As in ``Score``.
    """

    loss: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    ranking_score: npt.NDArray[np.float64]

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Where there is a score at all."""
        return np.asarray(np.isfinite(self).all(axis=0))


def lower_is_better(objective: Objective) -> bool:
    """Whether less of an objective is better."""
    return objective == "loss"


def is_share(objective: Objective) -> bool:
    """Whether an objective is a share of the rows that are called rightly, or a mean of classes' shares."""
    return objective in ("accuracy", "balanced_accuracy")


def scores_rows_by_logarithms(objective: Objective) -> bool:
    """Whether rows one by one are scored by the logarithm of their true class' probability; else as right or wrong.

    It stands for the AUC, too, as that has no rows.
    """
    return not is_share(objective)


def ranking_score(value: float, objective: Objective) -> float:
    """What heads are ranked by, higher is better: an objective's value, of a loss its negative. It undoes itself."""
    return -value if lower_is_better(objective) else value


def best_of(values: Iterable[float], objective: Objective) -> float:
    """Returns the best of some values of an objective.

    Raises:
        ValueError: There are none.
    """
    return max(values, key=lambda value: ranking_score(value, objective))


@dataclass(frozen=True)
class Score:
    """How well a head does on some rows.

    Attributes:
        loss: Mean of -log(probability of the true class), not smoothed, in nats.
        accuracy: Share of the rows whose most probable class is the true one, in [0, 1].
        ranking_score: What heads are ranked by, higher is better: the objective, of ``loss`` its negative.
    """

    loss: float
    accuracy: float
    ranking_score: float

    @property
    def finite(self) -> bool:
        """Whether it is a score at all."""
        return bool(np.isfinite([self.loss, self.accuracy, self.ranking_score]).all())

    def better_than(self, other: Score | None) -> bool:
        """Whether it is better by the rule of ``better``, or the first that is a score at all."""
        return self.finite if other is None else bool(better(self, other))

    @classmethod
    def mean(cls, scores: Sequence[Score]) -> Score:
        """Returns the mean over the folds."""
        return cls(
            *(float(np.mean([getattr(s, name) for s in scores])) for name in ("loss", "accuracy", "ranking_score"))
        )


def better(new: Score | Scores, best: Score | Scores) -> npt.NDArray[np.bool_]:
    """Where a score is better than another: by a higher ranking score, of equal ones by a lower loss.

    One with NaN is never better, and any other is better than one with NaN.
    """
    higher = np.greater(new.ranking_score, best.ranking_score)
    equal = np.equal(new.ranking_score, best.ranking_score)
    wins = np.logical_not(best.finite) | higher | (equal & np.less(new.loss, best.loss))
    return np.asarray(new.finite & wins)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one head.

    Attributes:
        epoch: 1 for the first.
        train_loss: Mean loss over the epoch's batches as trained on: smoothed labels, class weights, dropout active.
        validation: Score after the epoch, of each row's first view (``EPOCH_VIEW``); of the epoch that a training ends
            with, over all views.
        learning_rate: The rate used in this epoch.
    """

    epoch: int
    train_loss: float
    validation: Score
    learning_rate: float

    def replaces(self, best: EpochRecord | None, *, last_counts: bool) -> bool:
        """Whether a head is what this epoch makes of it, until a later one does.

        Args:
            best: Of the epochs before; None where there are none.
            last_counts: Whether a head is what its last epoch makes of it, see ``HeadSpec.last_counts``.
        """
        return last_counts or self.validation.better_than(best.validation if best else None)


class BestEpochs:
    """The best epochs of many heads that train together, by the rule of ``EpochRecord.replaces``.

    Args:
        last_counts: Whether each head is what its last epoch makes of it: of the shape of ``Scores``, or one that
            broadcasts to it.
    """

    def __init__(self, last_counts: npt.NDArray[np.bool_]) -> None:
        self._last_counts = last_counts
        self._best: Scores | None = None

    def update(self, scores: Scores, here: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Takes what an epoch made of the heads; returns where it is the best so far.

        Args:
            scores: Of all places.
            here: Where there is a head, of the same shape.
        """
        best = self._best or Scores(*np.full((3, *here.shape), np.nan))
        replaced: npt.NDArray[np.bool_] = here & (self._last_counts | better(scores, best))
        self._best = Scores(*(np.where(replaced, new, old) for new, old in zip(scores, best, strict=True)))
        return replaced


def score(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], objective: Objective = "accuracy") -> Score:
    """Scores class probabilities.

    Args:
        probabilities: (rows, classes); with several views, their average.
        labels: (rows,) index of the true class.
        objective: One of ``OBJECTIVES``.

    Returns:
        The score; its numbers are NaN where a probability is, or where there are no rows.
    """
    return Score(*(float(number[0]) for number in score_all(probabilities[None], labels, objective)))


def score_all(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any], objective: Objective) -> Scores:
    """Scores many heads on the same rows.

    Args:
        probabilities: (heads, rows, classes).
        labels: (rows,) index of the true class.
        objective: One of ``OBJECTIVES``. The AUC is the unweighted mean of each class against all others, over those
            that have rows and leave rows; balanced accuracy the mean sensitivity of those that have rows.

    Returns:
        (heads,) each.
    """
    assert objective in OBJECTIVES, objective
    heads, rows, _ = probabilities.shape
    sound = ~np.isnan(probabilities).any(axis=(1, 2)) if rows else np.zeros(heads, bool)
    if not sound.any():
        return Scores(*np.full((3, heads), np.nan))
    with np.errstate(invalid="ignore"):
        loss = 0.0 - true_logarithms(probabilities, labels).mean(axis=1)  # never -0.0
    right = probabilities.argmax(axis=2) == labels
    accuracy = right.mean(axis=1)
    if objective == "balanced_accuracy":
        ranking_score = np.mean([right[:, labels == label].mean(axis=1) for label in np.unique(labels)], axis=0)
    elif objective == "auc":
        ranking_score = np.full(heads, np.nan)
        ranking_score[sound] = _mean_area(probabilities[sound], labels)
    else:
        ranking_score = -loss if lower_is_better(objective) else accuracy
    return Scores(*(np.where(sound, numbers, np.nan) for numbers in (loss, accuracy, ranking_score)))


def true_logarithms(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns the logarithm of the true class' probability, which counts as ``PROBABILITY_FLOOR`` at least.

    Args:
        probabilities: (..., rows, classes).
        labels: (rows,) index of the true class.

    Returns:
        (..., rows), in nats; contiguous, so that a head's sum is added up in one order however many there are.
    """
    true = np.ascontiguousarray(probabilities[..., np.arange(len(labels)), labels], np.float64)
    return np.log(np.clip(true, PROBABILITY_FLOOR, None))


def class_areas(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Area under the ROC curve of each class' probability: Mann and Whitney's U by ranks, ties shared.

    As ``sklearn.metrics.roc_auc_score``, for all heads at once.

    Args:
        probabilities: (heads, rows, classes).
        labels: (rows,) index of the true class.

    Returns:
        (classes, heads); NaN of a class that no row is of, or every row.
    """
    from scipy.stats import rankdata

    heads, _, classes = probabilities.shape
    areas = np.full((classes, heads), np.nan)
    for label in range(classes):
        own = labels == label
        positives, negatives = int(own.sum()), int((~own).sum())
        if positives and negatives:
            ranks = rankdata(probabilities[:, :, label], axis=1)
            above = ranks[:, own].sum(axis=1) - positives * (positives + 1) / 2
            areas[label] = above / (positives * negatives)
    return areas


def _mean_area(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean over the classes that have an area, (heads,)."""
    areas = class_areas(probabilities, labels)
    counted = areas[~np.isnan(areas).any(axis=1)]
    return np.asarray(counted.mean(axis=0)) if len(counted) else areas[0]


def predict_probabilities(
    model: Any,
    feed: Feed,
    *,
    batch_size: int = 256,
    views: Sequence[int] | None = None,
    on_progress: OnProgress = unwatched,
) -> Probabilities:
    """Predicts all rows of a feed in every view, or in some, and averages over the views.

    They are added up as they come: in memory is what is returned.

    Args:
        model: Keras model from (batch, height, width, channels) to (batch, classes).
        feed: The rows.
        batch_size: Rows in a batch; the last one is padded, so that every batch has one shape.
        views: Which; by default all.
        on_progress: Told how many rows of how many are predicted, each once for each view.

    Returns:
        (rows, classes) float32 in the order of ``feed.rows``.
    """
    size = min(batch_size, len(feed.rows)) or 1
    chosen = range(feed.views) if views is None else views
    done, total = 0, len(feed.rows) * len(chosen)
    on_progress(done, total)
    sums: Probabilities | None = None
    with heeding_stops(at_once=True) as stop:
        for view in chosen:
            for features in feed.score_batches(size, view):
                found, row = predict_batch(model, features, size), done % len(feed.rows)
                if sums is None:
                    sums = np.zeros((len(feed.rows), found.shape[1]), np.float32)
                sums[row : row + len(found)] += found
                stop.take_effect()
                done += len(features)
                on_progress(done, total)
    assert sums is not None, "rows and views, one of each at least"
    sums /= np.float32(len(chosen))
    return sums


def mean_probabilities(some: Sequence[Probabilities]) -> Probabilities:
    """Returns the mean over views, or over heads, float32: of (rows, classes) each."""
    return np.asarray(np.mean(some, axis=0, dtype=np.float32))


def predict_batch(model: Any, features: npt.NDArray[Any], size: int) -> Probabilities:
    """Predicts up to ``size`` rows, padded to ``size``; returns (rows, classes) float32.

    The model is called directly: a compiled ``predict`` would be traced anew for every head of a study, which costs
    more than it saves on so small a model.
    """
    rows = len(features)
    if rows < size:
        features = np.concatenate([features, np.zeros((size - rows, *features.shape[1:]), features.dtype)])
    return np.asarray(_to_numpy(model(features, training=False))[:rows], np.float32)


def _to_numpy(tensor: Any) -> npt.NDArray[Any]:
    import keras  # what scores arrays alone need not start a backend

    return np.asarray(keras.ops.convert_to_numpy(tensor))
