"""How a head is scored: the same for the solo run, the fused bank, the study and ``heads.evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.feed import Feed

PROBABILITY_FLOOR = 1e-7
Probabilities = npt.NDArray[np.float32]
"""(rows, classes), each row summing to 1."""


@dataclass(frozen=True)
class Score:
    """How well a head does on some rows.

    Attributes:
        loss: Mean of -log(probability of the true class), not smoothed, in nats.
        accuracy: Share of the rows whose most probable class is the true one, in [0, 1].
    """

    loss: float
    accuracy: float

    def better_than(self, other: Score | None) -> bool:
        """Higher accuracy is better, at equal accuracy the lower loss; a score with NaN is better than nothing."""
        if np.isnan(self.loss) or np.isnan(self.accuracy):
            return False
        if other is None or np.isnan(other.loss) or np.isnan(other.accuracy):
            return True
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of one head.

    Attributes:
        epoch: 1 for the first.
        train_loss: Mean loss over the epoch's batches as trained on: smoothed labels, dropout active.
        validation: Score after the epoch.
        learning_rate: The rate used in this epoch.
    """

    epoch: int
    train_loss: float
    validation: Score
    learning_rate: float


def score(probabilities: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Score:
    """Scores class probabilities.

    Args:
        probabilities: (rows, classes); with several views, their average.
        labels: (rows,) index of the true class.

    Returns:
        The score; both numbers are NaN where a probability is, or where there are no rows.
    """
    if not len(labels) or np.isnan(probabilities).any():
        return Score(float("nan"), float("nan"))
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = -np.log(np.clip(true, PROBABILITY_FLOOR, None)).mean()
    return Score(float(loss), float((probabilities.argmax(1) == labels).mean()))


def predict_probabilities(
    model: Any, feed: Feed, *, batch_size: int = 256, on_batch: Callable[[int], object] | None = None
) -> Probabilities:
    """Predicts all rows of a feed in every view and averages over the views.

    Args:
        model: Keras model from (batch, height, width, channels) to (batch, classes).
        feed: The rows.
        batch_size: Rows in a batch; the last one is padded, so that every batch has one shape.
        on_batch: Called after every batch of every view with the number of rows in it.

    Returns:
        (rows, classes) float32 in the order of ``feed.rows``.
    """
    size = min(batch_size, len(feed.rows)) or 1
    views = []
    for view in range(feed.views):
        batches = []
        for features in feed.score_batches(size, view):
            batches.append(predict_batch(model, features, size))
            if on_batch is not None:
                on_batch(len(features))
        views.append(np.concatenate(batches))
    return average_views(views)


def average_views(views: Sequence[Probabilities]) -> Probabilities:
    """Returns the mean over the views, float32: of (rows, classes) each."""
    return np.asarray(np.mean(views, axis=0, dtype=np.float32))


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
    import keras  # noqa: PLC0415  what scores arrays alone need not start a backend

    return np.asarray(keras.ops.convert_to_numpy(tensor))
