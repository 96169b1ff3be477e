"""Models that train epoch by epoch, one or one for each fold: own heads, and ours beside them.

What ``heads.model.fit.train_solo`` does in one call of ``fit`` is done here in a call for each epoch, so that the
models of several folds are judged together after each of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean
from threading import RLock
from typing import Any

import keras
import numpy as np

from features.rows.feed import Feed
from features.runtime.errors import BottleneckError
from features.runtime.keras_settings import keras_seed_restored
from features.runtime.stopping import heeding_stops
from features.runtime.text import printable, shortened
from heads.metrics.scoring import EpochRecord, Objective, Probabilities, Score
from heads.model.build import build_head
from heads.model.fit import Batches, Recorder, compile_head, plateau_of
from heads.model.keras_internals import without_tensorflow
from heads.model.spec import HeadSpec
from heads.model.weights import Weights, unbiased, without_statistics

_drawing = RLock()
"""Held while a seed decides what is drawn: Python's and NumPy's generators are one for all threads."""
_SPARSE = ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")


class TrainingError(BottleneckError):
    """A model of somebody's own function could not be trained.

    Attributes:
        reason: What happened, without whose model it is.
    """

    reason: str = ""


@dataclass(frozen=True)
class Trainee:
    """A compiled model, and what belongs to its training.

    Attributes:
        model: The model.
        settle: Makes the weights to score of those that were trained, see ``heads.model.weights.unbiased``.
        plateau: What cuts its learning rate; None for nothing.
        one_hot: Whether its loss takes one-hot labels; else their indices.
        where: Whose code it is, for messages; empty for ours, whose errors are not the user's.
    """

    model: Any
    settle: Callable[[Weights, int], Weights]
    plateau: Any
    one_hot: bool = True
    where: str = ""

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Says in a line what a model of the user's own stumbles over."""
        try:
            yield
        except BottleneckError:
            raise
        except Exception as error:
            if not self.where:
                raise
            text = shortened(printable(" ".join(str(error).split())), 200)
            found = f"{type(error).__name__} ({text})"
            problem = TrainingError(f"{self.where}: expected a model that can be trained, found {found}")
            problem.reason = found
            raise problem from error


@dataclass(frozen=True)
class TrainedTogether:
    """One head, or one for each fold, after its training.

    Attributes:
        weights: Of each, those of ``best``, in the order of ``model.get_weights()``.
        best: The best epoch, or the last where that counts, a mean over the folds; its score is that of
            ``probabilities``.
        curve: All epochs, in order, likewise, each scored on the rows' first view.
        probabilities: Of each on its validation rows, by ``weights`` and averaged over the views.
    """

    weights: list[Weights]
    best: EpochRecord
    curve: tuple[EpochRecord, ...]
    probabilities: list[Probabilities]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lets a seed decide what Keras layers draw that have none; Python's, NumPy's and Keras' own are put back.

    Another thread that comes here waits until this one has left.
    """
    with _drawing, keras_seed_restored():
        python, numpy = random.getstate(), np.random.get_state()
        with without_tensorflow():
            keras.utils.set_random_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def head_trainee(spec: HeadSpec, feature_shape: tuple[int, int, int], classes: int, *, seed: int) -> Trainee:
    """Returns one of our heads as ``heads.model.fit.train_solo`` trains it, if a plateau cuts its rate.

    ``train_together`` knows no cosine: it would train such a head at other rates.
    """
    assert spec.schedule == "plateau", spec.schedule
    model = build_head(spec, feature_shape, classes, seed=seed)
    model.set_weights(without_statistics(spec, model.get_weights()))
    compile_head(model, spec)
    return Trainee(model, partial(unbiased, spec), plateau_of(spec))


def own_trainee(model: Any, where: str) -> Trainee:
    """Returns a model of somebody's own function.

    One that is not compiled is trained as the article's head is: Adam 1e-3, ReduceLROnPlateau, categorical
    cross-entropy. One that is keeps its optimizer, its loss and its metrics, and nothing else cuts its rate.

    Args:
        model: Built.
        where: Whose code it is.
    """
    if model.compiled:
        loss = getattr(model, "loss", None)
        name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        return Trainee(model, _as_they_are, None, one_hot=name not in _SPARSE, where=where)
    article = HeadSpec()
    compile_head(model, article)
    return Trainee(model, _as_they_are, plateau_of(article), where=where)


def _as_they_are(weights: Weights, steps: int) -> Weights:
    del steps
    return weights


def try_step(trainee: Trainee, feature_shape: tuple[int, int, int], classes: int) -> None:
    """Trains a model for one step on made-up rows.

    Raises:
        TrainingError: Its loss, a metric or the model itself does not take them.
    """
    labels = np.arange(2 * classes) % classes
    features = np.random.default_rng(0).random((len(labels), *feature_shape), np.float32)
    targets = np.eye(classes, dtype=np.float32)[labels] if trainee.one_hot else labels
    with trainee.translated_errors():
        trainee.model.train_on_batch(features, targets, sample_weight=np.ones(len(labels), np.float32))


def train_together(
    trainees: Sequence[Trainee],
    batches: Sequence[Batches],
    validations: Sequence[Feed],
    *,
    epochs: int,
    objective: Objective,
    last_counts: bool = False,
    on_epoch: Callable[[EpochRecord], bool],
) -> TrainedTogether:
    """Trains models side by side, epoch by epoch.

    Args:
        trainees: One, or one for each fold.
        batches: What each is trained on.
        validations: What each is scored on.
        epochs: Upper bound.
        objective: What decides the best epoch.
        last_counts: Whether the models are what their last epoch makes of them; no best one is picked then.
        on_epoch: Called after every epoch with the mean over the models; returning False ends the training.

    Raises:
        DivergedError: Loss or weights of one stopped being finite.
        TrainingError: A model of the user's own raised something.
    """
    recorders = [
        Recorder(batch, feed, objective, settle=trainee.settle)
        for trainee, batch, feed in zip(trainees, batches, validations, strict=True)
    ]
    for trainee in trainees:
        if trainee.plateau is not None:
            trainee.plateau.set_model(trainee.model)
            trainee.plateau.on_train_begin()
    curve: list[EpochRecord] = []
    best: EpochRecord | None = None
    weights: list[Weights] = []
    for epoch in range(epochs):
        for trainee, batch, recorder in zip(trainees, batches, recorders, strict=True):
            _fit_epoch(trainee, batch, epoch, recorder)
        curve.append(_mean([recorder.curve[-1] for recorder in recorders]))
        if curve[-1].replaces(best, last_counts=last_counts):
            best = curve[-1]
            weights = [recorder.weights for recorder in recorders]
        if not on_epoch(curve[-1]):
            break
    assert best is not None
    finished = []
    for trainee, recorder, of_best in zip(trainees, recorders, weights, strict=True):
        with trainee.translated_errors():
            finished.append(recorder.score_finished(of_best))
    probabilities, scores = zip(*finished, strict=True)
    return TrainedTogether(weights, replace(best, validation=Score.mean(scores)), tuple(curve), list(probabilities))


def train_for(trainee: Trainee, batches: Batches, rates: Sequence[float], *, epochs: int) -> Weights:
    """Trains a model without anything to validate on.

    Args:
        trainee: The model.
        batches: What it is trained on.
        rates: Learning rate of each epoch, the last one for all that follow; a model with a schedule of its own, or
            none of our plateau, keeps what it has.
        epochs: How long.

    Returns:
        Its weights after the last epoch; they may not be finite.

    Raises:
        TrainingError: A model of the user's own raised something.
        KeyboardInterrupt: After Ctrl-C, or SIGTERM.
    """
    with heeding_stops(at_once=True) as stop:
        for epoch in range(epochs):
            if trainee.plateau is not None:
                trainee.model.optimizer.learning_rate = rates[min(epoch, len(rates) - 1)]
            batches.start(epoch)
            _fit_epoch(trainee, batches, epoch)
            stop.take_effect()
    weights: Weights = trainee.settle(trainee.model.get_weights(), epochs * len(batches))
    return weights


def _fit_epoch(trainee: Trainee, batches: Batches, epoch: int, recorder: Recorder | None = None) -> None:
    with trainee.translated_errors():
        trainee.model.fit(
            batches,
            initial_epoch=epoch,
            epochs=epoch + 1,
            shuffle=False,
            verbose=0,
            callbacks=[] if recorder is None else [recorder],
        )
        if recorder is not None and trainee.plateau is not None:
            trainee.plateau.on_epoch_end(epoch, {"val_loss": recorder.curve[-1].validation.loss})


def _mean(records: Sequence[EpochRecord]) -> EpochRecord:
    if len(records) == 1:
        return records[0]
    return EpochRecord(
        records[0].epoch,
        mean(record.train_loss for record in records),
        Score.mean([record.validation for record in records]),
        mean(record.learning_rate for record in records),
    )
