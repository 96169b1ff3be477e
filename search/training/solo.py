"""``--engine solo``: the trials of a study, one after the other, by Keras ``fit``. The reference for the pool."""

from __future__ import annotations

from collections.abc import Callable

from heads.metrics.scoring import EpochRecord
from heads.model.fit import DivergedError, Schedule, TrainedHead, train_solo
from search.setup.data import SearchData
from search.setup.seeds import derive_seed
from search.training.checkpoint_sink import CheckpointSink
from search.training.display import Display
from search.trials.ask_tell import Asked, Book
from search.trials.notes import TrialNotes


class OneAtATime:
    """Runs the trials that a book still has to give out."""

    def __init__(
        self, book: Book, data: SearchData, sink: CheckpointSink, display: Display, *, flush: Callable[[], None]
    ) -> None:
        self.book = book
        self.data = data
        self.sink = sink
        self.display = display
        self.flush = flush

    def run(self) -> None:
        """Trains until every trial has been told. What was recorded is durable after every epoch."""
        while (asked := self.book.ask()) is not None:
            self.flush()  # a killed run must find the trial it was at
            self._run(asked)
            self.sink.write_out()
            self.flush()
            self.display.finished(asked.number)

    def _run(self, asked: Asked) -> None:
        config, epochs, pruned = self.book.config, 0, False
        best: EpochRecord | None = None

        def on_epoch(record: EpochRecord) -> bool:
            nonlocal best, epochs, pruned
            epochs = record.epoch
            if asked.spec.last_counts or record.validation.better_than(best.validation if best else None):
                best = record
            self.book.report(asked, record)
            through = self.book.is_through(epochs, best)
            pruned = not through and self.book.should_prune(asked)
            self.flush()
            self.display.epoch()
            return not (through or pruned)

        schedule = Schedule(
            epochs=config.epochs,
            batch_size=config.batch_size,
            plan_seed=derive_seed(config.seed, "batches"),
            objective=config.objective,
            class_weights=self.data.class_weights(config.class_weights),
        )
        try:
            trained = train_solo(
                asked.spec,
                self.data.train,
                self.data.validation,
                schedule,
                seed=asked.seed,
                on_epoch=on_epoch,
            )
        except DivergedError as error:
            self.book.fail(asked, str(error), epochs=epochs)
            return
        if pruned:
            self.book.prune(asked, epochs=epochs)
        else:
            self._complete(asked, trained, epochs)

    def _complete(self, asked: Asked, trained: TrainedHead, epochs: int) -> None:
        best = trained.best
        self.sink.offer(asked, [trained.weights], best.validation, ())
        rates = [record.learning_rate for record in trained.curve[: best.epoch]]
        TrialNotes.write(asked.trial, learning_rates=rates)
        self.book.complete(asked, best, epochs=epochs, parameters=sum(array.size for array in trained.weights))
