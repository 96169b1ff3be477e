"""Heads in one bank, trained from their first weights to their exact scores, with a clock beside them."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from paths import use_tests

use_tests()

Plan = Callable[[int], tuple[Any, Any]]
"""Of an epoch: its batches, and with folds the fold of each."""


class MeasuredBank:
    """Runs the same heads again and again.

    Args:
        engine: An empty bank that has room for them.
        specs: The heads.
        plan: See ``Plan``.
        epochs: Of every head.

    Attributes:
        rates: Trial-epochs per second of each run; the first one compiles. With folds a trial is a head for each.
        compilation: Seconds that the first run took longer than the second.
        scores: Exact ones, of the last run.
        parts: Seconds of each part of the work, over all runs but the first.
        training: Seconds of each epoch's training, likewise.
        steps: Batches of an epoch.
        bare_rates: Of the bare products of the bank's first layers, measured after each of these epochs.
    """

    def __init__(self, engine: Any, specs: Sequence[Any], plan: Plan, *, epochs: int) -> None:
        self.engine, self.specs, self.plan, self.epochs = engine, list(specs), plan, epochs
        self.rates: list[float] = []
        self.training: list[float] = []
        self.bare_rates: list[float] = []
        self.scores: list[Any] = []
        self.parts: defaultdict[str, float] = defaultdict(float)
        self.compilation, self.steps = 0.0, 0
        self._first = 0.0

    @property
    def rate(self) -> float:
        """Trial-epochs per second, the median of all runs but the first."""
        return statistics.median(self.rates[1:])

    def run(self) -> float:
        """Trains all heads and scores them; returns trial-epochs per second."""
        from heads.bank.engine import Newcomer
        from heads.bank.exact import Finished
        from heads.bank.matmul_rate import bank_rate
        from heads.metrics.scoring import BestEpochs

        begun, first = time.perf_counter(), not self.rates
        if len(self.rates) == 1:
            self.parts.clear()  # of the run that compiled
        aside, folds = 0.0, range(self.engine.shape.folds)
        seeds = [tuple(1000 * fold + number for fold in folds) for number in range(len(self.specs))]
        with self._part("heads in and out"):
            newcomers = [
                Newcomer(spec=spec, seeds=own, epochs=self.epochs) for spec, own in zip(self.specs, seeds, strict=True)
            ]
            slots = self.engine.insert(newcomers)
        best = BestEpochs(self.engine.last_counts)
        for epoch in range(self.epochs):
            self._epoch(epoch, best, measured=not first)
            if not first:
                since = time.perf_counter()
                self.bare_rates.append(bank_rate(self.engine.shape, self.engine.dtype, repetitions=2))
                aside += time.perf_counter() - since
        with self._part("exact scores"):
            heads = [
                Finished(spec=self.engine.specs[slot], weights=self.engine.take_out(slot, fold=fold), fold=fold)
                for slot in slots
                for fold in folds
            ]
            self.scores = exact_scores(self.engine, heads)
        with self._part("heads in and out"):
            self.engine.remove(slots)
        seconds = time.perf_counter() - begun - aside
        if len(self.rates) == 1:
            self.compilation = max(0.0, self._first - seconds)
        self._first = seconds if first else self._first
        self.rates.append(len(slots) * self.epochs / seconds)
        return self.rates[-1]

    def _epoch(self, epoch: int, best: Any, *, measured: bool) -> None:
        """Trains and scores one epoch and keeps what is best."""
        batches, folds = self.plan(epoch)
        begun = time.perf_counter()
        with self._part("training"):
            self.engine.train_epoch(batches, folds)
        if measured:
            self.training.append(time.perf_counter() - begun)
        self.steps = len(batches)
        with self._part("validation"):
            scores = self.engine.validate()
        with self._part("best weights"):
            self.engine.update_learning_rates(scores.loss)
            self.engine.keep(best.update(scores, self.engine.occupied))

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] += time.perf_counter() - begun


def exact_scores(engine: Any, heads: Sequence[Any]) -> list[Any]:
    """Scores heads that a bank has finished, as a search does: in float32, on the features as stored."""
    found = zip(heads, engine.predict_exactly(heads), strict=True)
    return [engine.score_predicted(probabilities, fold=head.fold) for head, probabilities in found]


def made_store(path: Any, rows: int, *, shape: tuple[int, int, int], classes: int, batch: int) -> Any:
    """Writes a store of generated features, classes a little apart in a tenth of the channels, and opens it."""
    from made_stores import build_header, fill_store

    from features.store.reader import FeatureStore

    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, rows)
    header = build_header(rows=rows, shape=shape, classes="ABCDEFGH"[:classes], batch_size=batch)
    header = replace(header, labels=tuple(labels.tolist()), patients=("",) * rows)
    apart = generator.normal(0, 0.15, (classes, shape[2])) * (generator.random(shape[2]) < 0.1)

    def drawn(part: range) -> Any:
        noise = generator.standard_normal((len(part), 1, *shape), dtype=np.float32)
        return np.maximum(noise + apart[labels[part.start : part.stop]][:, None, None, None], 0).astype(np.float16)

    return FeatureStore(fill_store(path, header, drawn))
