"""One head trained by Keras ``fit`` with the article's callbacks: the reference for the fused bank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from features.rows.feed import EpochPlan, Feed, plan_epoch, plan_fold_epoch
from features.runtime.errors import BottleneckError
from features.runtime.keras_settings import separate_keras_session
from features.store.schema import Rows
from heads.metrics.scoring import (
    DIVERGED,
    EPOCH_VIEW,
    EpochRecord,
    Objective,
    Probabilities,
    Score,
    predict_probabilities,
    score,
)
from heads.model.build import build_head
from heads.model.keras_internals import OneReplicaAdam, OneReplicaSGD
from heads.model.spec import ADAM_EPSILON, PLATEAU_MIN_DELTA, PLATEAU_MIN_RATE, HeadSpec, cosine_rate
from heads.model.weights import Weights, unbiased, without_statistics


class DivergedError(BottleneckError):
    """The loss or the weights of a head are no longer finite."""


@dataclass(frozen=True)
class TrainedHead:
    """A head after its training.

    Attributes:
        spec: The head.
        weights: Those of ``best``, in the order of ``model.get_weights()``.
        best: The best epoch; the last one where that counts (``HeadSpec.last_counts``, ``Schedule.last_counts``). Its
            score is that of ``probabilities``.
        curve: All epochs, in order, each scored on the rows' first view.
        probabilities: Of the validation rows by ``weights``, averaged over the views: (rows, classes).
    """

    spec: HeadSpec
    weights: Weights
    best: EpochRecord
    curve: tuple[EpochRecord, ...]
    probabilities: Probabilities


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long heads train, on which batches, and what counts: what all heads of a study have in common.

    Attributes:
        epochs: Upper bound of epochs, at least 1.
        batch_size: Upper bound of rows in a batch.
        plan_seed: Decides the batches.
        first_epoch: Plan of the first epoch: that of a head that joined a running bank is the bank's epoch then.
        objective: What decides the best epoch, see ``heads.metrics.scoring``.
        last_counts: Whether every head is what its last epoch makes of it, also one whose best epoch would be picked.
        class_weights: What a row of each class counts in the training loss; 1 by default. The validation loss counts
            every row alike.
    """

    epochs: int
    batch_size: int
    plan_seed: int
    first_epoch: int = 0
    objective: Objective = "accuracy"
    last_counts: bool = False
    class_weights: Sequence[float] | None = None


def train_solo(
    spec: HeadSpec,
    train: Feed,
    validation: Feed,
    schedule: Schedule,
    *,
    seed: int,
    on_epoch: Callable[[EpochRecord], bool] | None = None,
) -> TrainedHead:
    """Trains one head.

    Args:
        spec: The head and how it is trained.
        train: Rows to train on; epoch ``e`` (from 1) follows ``plan_epoch(..., seed=schedule.plan_seed,
            epoch=schedule.first_epoch + e - 1)``.
        validation: Rows that decide the learning rate and the best epoch, by their first view, and what that epoch is
            worth, by all of them.
        schedule: How long, on which batches.
        seed: Decides the first weights and the dropout masks.
        on_epoch: Called after every epoch; returning False ends the training (a pruned trial).

    Returns:
        The head with the weights of its best epoch, or of the last where that counts.

    Raises:
        DivergedError: Loss or weights stopped being finite.
    """
    batches = Batches(train, schedule)
    with separate_keras_session():
        model = build_head(spec, train.shape, len(train.store.classes), seed=seed)
        model.set_weights(without_statistics(spec, model.get_weights()))
        recorder = Recorder(batches, validation, schedule.objective, settle=partial(unbiased, spec))
        best = _BestEpoch(recorder, last_counts=schedule.last_counts or spec.last_counts)
        compile_head(model, spec)
        callbacks = [recorder, _rates(spec, schedule.epochs), best, _Listener(recorder, on_epoch)]
        model.fit(batches, epochs=schedule.epochs, shuffle=False, verbose=0, callbacks=callbacks)
        probabilities, finished = recorder.score_finished(best.weights)
    curve = tuple(recorder.curve)
    return TrainedHead(spec, best.weights, replace(curve[best.index], validation=finished), curve, probabilities)


def compile_head(model: Any, spec: HeadSpec) -> None:
    """Compiles a head as it is trained."""
    model.compile(
        optimizer=_optimizer(spec),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=spec.label_smoothing),
        # XLA compiles for seconds in every trial and gains nothing on so small a model; JAX has no other way.
        jit_compile=keras.backend.backend() != "tensorflow",
    )


def _optimizer(spec: HeadSpec) -> Any:
    decay = spec.weight_decay or None
    if spec.is_sgd:
        return OneReplicaSGD(spec.learning_rate, momentum=spec.momentum, weight_decay=decay, name="sgd")
    return OneReplicaAdam(spec.learning_rate, epsilon=ADAM_EPSILON, weight_decay=decay, name="adam")


def _rates(spec: HeadSpec, epochs: int) -> Any:
    if spec.follows_cosine:
        return keras.callbacks.LearningRateScheduler(lambda epoch: cosine_rate(spec.learning_rate, epoch, epochs))
    return plateau_of(spec)


def plateau_of(spec: HeadSpec) -> Any:
    """Returns what cuts a head's learning rate on plateaus."""
    return keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss",
        factor=spec.plateau_factor,
        patience=spec.plateau_patience,
        min_delta=PLATEAU_MIN_DELTA,
        min_lr=PLATEAU_MIN_RATE,
    )


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """The planned batches of one epoch at a time: (features in the store's dtype, one-hot labels, row weights)."""

    def __init__(
        self,
        feed: Feed,
        schedule: Schedule,
        *,
        folds: Sequence[Rows] = (),
        left_out: int = 0,
        one_hot: bool = True,
    ) -> None:
        """Prepares.

        Args:
            feed: Rows to train on; with folds those of all of them.
            schedule: Says which batches, and what a row of each class counts.
            folds: Rows of each fold, where every batch is of one of them.
            left_out: With folds, the one whose batches are left out.
            one_hot: Whether labels are one-hot; else they are indices.
        """
        super().__init__(workers=1, use_multiprocessing=False)
        self.feed, self._schedule = feed, schedule
        self._folds, self._left_out = folds, left_out
        classes = len(feed.store.classes)
        weights = [1] * classes if schedule.class_weights is None else schedule.class_weights
        self._class_weights = np.asarray(weights, np.float32)
        self._targets: npt.NDArray[Any] = np.eye(classes, dtype=np.float32) if one_hot else np.arange(classes)
        self.start(0)

    def start(self, epoch: int) -> None:
        """Plans an epoch of this head, counted from 0."""
        schedule, views = self._schedule, self.feed.views
        size, seed, planned = schedule.batch_size, schedule.plan_seed, schedule.first_epoch + epoch
        if not self._folds:
            self.plan = plan_epoch(self.feed.rows, batch_size=size, views=views, seed=seed, epoch=planned)
            return
        plan, fold_of_batch = plan_fold_epoch(self._folds, batch_size=size, views=views, seed=seed, epoch=planned)
        kept = fold_of_batch != self._left_out
        self.plan = EpochPlan(plan.rows[kept], plan.views[kept])

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, step: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float32]]:
        rows = self.plan.rows[step]
        labels = self.feed.store.labels[rows]
        return self.feed.take(rows, self.plan.views[step]), self._targets[labels], self._class_weights[labels]


class Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Plans each epoch, scores the model after it, and refuses what is not finite.

    Attributes:
        curve: All epochs so far.
        weights: Those that were scored last.
    """

    def __init__(
        self, batches: Batches, validation: Feed, objective: Objective, *, settle: Callable[[Weights, int], Weights]
    ) -> None:
        """Prepares.

        Args:
            batches: What the model is trained on.
            validation: What it is scored on.
            objective: What decides the best epoch.
            settle: Makes the weights to score of those that were trained and the number of steps, see
                ``heads.model.weights.unbiased``.
        """
        super().__init__()
        self._batches, self._validation, self._objective, self._settle = batches, validation, objective, settle
        self.curve: list[EpochRecord] = []
        self.weights: Weights = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Plans the epoch's batches."""
        self._batches.start(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Scores the model."""
        assert logs is not None
        train_loss = float(logs["loss"])
        self._require_finite(epoch + 1, "training loss", train_loss)
        trained = self.model.get_weights()
        self.weights = self._settle(trained, (epoch + 1) * len(self._batches))
        self._require_finite(epoch + 1, "weights", *self.weights)
        self.model.set_weights(self.weights)
        _, validation = self._score(views=[EPOCH_VIEW])
        self.model.set_weights(trained)
        self._require_finite(epoch + 1, "validation loss", validation.loss)
        logs["val_loss"], logs["val_accuracy"] = validation.loss, validation.accuracy
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.curve.append(EpochRecord(epoch + 1, train_loss, validation, rate))

    def score_finished(self, weights: Weights) -> tuple[Probabilities, Score]:
        """Gives the model the weights that its training ends with, and predicts and scores with them in all views."""
        self.model.set_weights(weights)
        return self._score()

    def _score(self, views: Sequence[int] | None = None) -> tuple[Probabilities, Score]:
        probabilities = predict_probabilities(self.model, self._validation, views=views)
        return probabilities, score(probabilities, self._validation.labels, self._objective)

    @staticmethod
    def _require_finite(epoch: int, what: str, *values: Any) -> None:
        if not all(np.isfinite(value).all() for value in values):
            raise DivergedError(f"{DIVERGED} in epoch {epoch}: {what} not finite")


class _BestEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the weights of the best epoch, or of the last one where that counts."""

    def __init__(self, recorder: Recorder, *, last_counts: bool) -> None:
        super().__init__()
        self._recorder, self._last_counts = recorder, last_counts
        self.index = -1
        self.weights: Weights = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        best = self._recorder.curve[self.index] if self.weights else None
        if self._recorder.curve[-1].replaces(best, last_counts=self._last_counts):
            self.index, self.weights = len(self._recorder.curve) - 1, self._recorder.weights


class _Listener(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the caller of each epoch, and stops where the caller says so."""

    def __init__(self, recorder: Recorder, on_epoch: Callable[[EpochRecord], bool] | None) -> None:
        super().__init__()
        self._recorder, self._on_epoch = recorder, on_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._on_epoch is not None and not self._on_epoch(self._recorder.curve[-1]):
            self.model.stop_training = True
