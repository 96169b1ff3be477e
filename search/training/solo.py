"""``--engine solo``: the trials of a study, one after the other, by Keras ``fit``. The reference for the pool.

It is also how heads of somebody's own function are trained (``--head``), with the article's head beside them; with
folds the models of a trial train side by side, epoch by epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from features.rows.feed import Feed
from features.runtime.keras_settings import separate_keras_session
from features.runtime.memory import resident_budget
from features.runtime.stopping import Stop, heeding_stops
from heads.metrics.scoring import EpochRecord
from heads.model.fit import Batches, DivergedError, Schedule, train_solo
from heads.model.spec import HeadSpec
from heads.model.stepwise import (
    TrainedTogether,
    Trainee,
    TrainingError,
    head_trainee,
    own_trainee,
    seeded,
    train_together,
)
from search.setup.data import SearchData
from search.setup.own_head import BuildError, OwnHead
from search.setup.seeds import batches_seed, fold_seeds
from search.setup.stores import StudyData
from search.training.checkpoint_sink import CheckpointSink
from search.training.display import Display
from search.trials.ask_tell import Asked, Book
from search.trials.notes import TrialNotes


class OneAtATime:
    """Runs the trials that a book still has to give out."""

    def __init__(
        self, book: Book, data: StudyData, sink: CheckpointSink, display: Display, *, flush: Callable[[], Any]
    ) -> None:
        self.book = book
        self.data = data
        self.sink = sink
        self.display = display
        self.flush = flush
        self._validations = {name: _validations(one, len(data.named)) for name, one in data.named.items()}

    def run(self) -> None:
        """Trains until every trial has been told. What was recorded is durable after every epoch.

        Raises:
            KeyboardInterrupt: After Ctrl-C, or SIGTERM, at once; at the latest when the epoch has ended.
            InputError: A store was written to.
        """
        with heeding_stops(at_once=True) as stop:
            while True:
                if (asked := self.book.ask()) is None:
                    if not self.book.wait():
                        return
                    continue
                self.flush()  # a killed run must find the trial it was at
                if asked.problem is None:
                    self._run(asked, stop)
                else:
                    self.book.fail(asked, asked.problem, epochs=0)
                self.sink.write_out()
                self.flush()
                self.display.finished(asked.number)

    def _run(self, asked: Asked, stop: Stop) -> None:
        config, epochs, pruned = self.book.config, 0, False
        best: EpochRecord | None = None

        def on_epoch(record: EpochRecord) -> bool:
            nonlocal best, epochs, pruned
            self.data.require_unchanged()
            epochs = record.epoch
            if record.replaces(best, last_counts=asked.last_counts):
                best = record
            self.book.report(asked, record)
            through = self.book.is_through(asked, epochs, best)
            pruned = not through and self.book.should_prune(asked)
            self.flush()
            self.display.epoch()
            stop.take_effect()
            return not (through or pruned)

        schedule = Schedule(
            epochs=config.epochs,
            batch_size=config.batch_size,
            plan_seed=batches_seed(config.seed),
            objective=config.objective,
            last_counts=asked.last_counts,
            class_weights=self.data.first.class_weights(config.class_weights),
        )
        try:
            trained = self._train(asked, schedule, on_epoch)
            if not pruned:
                self._keep(asked, trained)
        except (DivergedError, TrainingError, BuildError) as error:
            self.book.fail(asked, str(error), epochs=epochs)
            return
        if pruned:
            self.book.prune(asked, epochs=epochs)
        else:
            self._complete(asked, trained, epochs)

    def _train(self, asked: Asked, schedule: Schedule, on_epoch: Callable[[EpochRecord], bool]) -> TrainedTogether:
        data = self.data.of(asked.store)
        if isinstance(asked.head, HeadSpec) and not data.folds:
            whole = train_solo(asked.head, data.train, data.validation, schedule, seed=asked.seed, on_epoch=on_epoch)
            return TrainedTogether([whole.weights], whole.best, whole.curve, [whole.probabilities])
        with separate_keras_session():
            trainees = [self._trainee(asked, seed) for seed in fold_seeds(asked.seed, max(1, len(data.folds)))]
            batches = [
                Batches(data.train, schedule, folds=data.folds, left_out=fold, one_hot=one.one_hot)
                for fold, one in enumerate(trainees)
            ]
            with seeded(asked.seed):
                return train_together(
                    trainees,
                    batches,
                    self._validations[asked.store],
                    epochs=schedule.epochs,
                    objective=schedule.objective,
                    last_counts=schedule.last_counts,
                    on_epoch=on_epoch,
                )

    def _trainee(self, asked: Asked, seed: int) -> Trainee:
        """The model of a trial, ready to be trained.

        Raises:
            BuildError: Somebody's own function does not make it any more.
        """
        if isinstance(asked.head, HeadSpec):
            data = self.data.of(asked.store)
            return head_trainee(asked.head, data.train.shape, len(data.store.classes), seed=seed)
        own = self.book.space
        assert isinstance(own, OwnHead)
        return own_trainee(own.rebuild(asked.head, seed=seed, number=asked.number), own.function.where)

    def _keep(self, asked: Asked, trained: TrainedTogether) -> None:
        """Brings a head to disk: a stop, or a full disk, must not leave a trial that was told and has no file.

        Raises:
            BuildError: It is of somebody's own function, and cannot be saved.
        """
        self.sink.offer(asked, trained.weights, trained.best.validation, trained.probabilities)
        self.sink.write_held()

    def _complete(self, asked: Asked, trained: TrainedTogether, epochs: int) -> None:
        best = trained.best
        rates = [record.learning_rate for record in trained.curve[: best.epoch]]
        TrialNotes.write(asked.trial, learning_rates=rates)
        parameters = sum(array.size for array in trained.weights[0])
        self.book.complete(asked, best, epochs=epochs, parameters=parameters)


def _validations(data: SearchData, stores: int) -> list[Feed]:
    """What each model of a trial is scored on: the validation rows, or its fold."""
    if not data.folds:
        return [data.validation]
    share = resident_budget() // 5 // (stores * len(data.folds))
    return [Feed(data.store, rows, memory_bytes=share) for rows in data.folds]
