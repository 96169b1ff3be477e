"""``--engine solo``: the trials of a study, one after the other, by Keras ``fit``. The reference for the pool."""

from __future__ import annotations

from collections.abc import Callable

from heads.model import Weights
from heads.scoring import EpochRecord
from heads.solo import DivergedError, train_solo
from search.book import Asked, Book
from search.data import SearchData
from search.display import Display
from search.seeds import derive_seed
from search.shelf import Shelf


class OneAtATime:
    """Runs the trials that a book still has to give out."""

    def __init__(
        self, book: Book, data: SearchData, shelf: Shelf, display: Display, *, flush: Callable[[], None]
    ) -> None:
        self.book = book
        self.data = data
        self.shelf = shelf
        self.display = display
        self.flush = flush

    def run(self) -> None:
        """Trains until every trial has been told. What was recorded is durable after every epoch."""
        while (asked := self.book.ask()) is not None:
            self.flush()  # a killed run must find the trial it was at
            self._run(asked)
            self.shelf.write_out()
            self.flush()
            self.display.finished(asked.number)

    def _run(self, asked: Asked) -> None:
        config, epochs, pruned = self.book.config, 0, False

        def on_epoch(record: EpochRecord) -> bool:
            nonlocal epochs, pruned
            epochs = record.epoch
            self.book.report(asked, record)
            pruned = epochs < config.epochs and self.book.should_prune(asked)
            self.flush()
            self.display.epoch()
            return not pruned

        try:
            trained = train_solo(
                asked.spec,
                self.data.train,
                self.data.validation,
                epochs=config.epochs,
                batch_size=config.batch_size,
                seed=asked.seed,
                plan_seed=derive_seed(config.seed, "batches"),
                on_epoch=on_epoch,
            )
        except DivergedError as error:
            self.book.fail(asked, str(error), epochs=epochs)
            return
        if pruned:
            self.book.prune(asked, epochs=epochs)
        else:
            self._complete(asked, trained.weights, trained.best, epochs)

    def _complete(self, asked: Asked, weights: Weights, best: EpochRecord, epochs: int) -> None:
        self.shelf.offer(asked, weights, best.validation)
        self.book.complete(asked, best, epochs=epochs, parameters=sum(array.size for array in weights))
