"""A few heads by patient folds, all in one bank: what they make of rows that they were not trained on."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import numpy as np

from features.rows.feed import Feed, plan_fold_epoch
from features.store.schema import Rows
from features.store.source import FeatureSource
from heads.bank.backends import bank_budget
from heads.bank.engine import Engine, Newcomer
from heads.bank.exact import Finished
from heads.bank.shape import BankShape, pages_of
from heads.metrics.scoring import BestEpochs, Probabilities
from heads.model.spec import HeadSpec
from search.setup.seeds import derive_seed

Head = tuple[HeadSpec, int]
"""A head, and the seed of its first weights."""


def cross_validate(
    source: FeatureSource, folds: Sequence[Rows], heads: Sequence[Head], *, epochs: int, batch_size: int, seed: int
) -> list[Probabilities]:
    """Trains heads on all folds but one in turn and predicts that one with the weights of their best epochs.

    Args:
        source: The rows' features.
        folds: Rows of each, at least two.
        heads: At least one.
        epochs: How long each trains.
        batch_size: Rows in a batch, at most.
        seed: Decides the order of the rows, and with a head's own seed the first weights in each fold.

    Returns:
        For each head (rows, classes), averaged over the views; the rows of the folds, one behind the other.
    """
    gc.collect()  # the bank before this one
    rows = np.sort(np.concatenate(folds))
    feed = Feed(source, rows, memory_bytes=bank_budget() // 2)
    plan, _ = plan_fold_epoch(folds, batch_size=batch_size, views=feed.views, seed=seed, epoch=0)
    specs = [spec for spec, _ in heads]
    most = BankShape.covering(
        specs,
        pages=sum(map(pages_of, specs)),
        feature_shape=feed.shape,
        classes=len(source.classes),
        batch=plan.rows.shape[1],
        folds=len(folds),
    )
    engine = Engine(most.just_for(specs), train=feed, validation_rows=folds, resident=feed.resident)
    numbers = range(len(folds))
    newcomers = [
        Newcomer(spec=spec, seeds=tuple(derive_seed(own, "fold", fold) for fold in numbers), epochs=epochs)
        for spec, own in heads
    ]
    slots = engine.insert(newcomers)
    _train(engine, folds, feed.views, epochs=epochs, batch_size=batch_size, seed=seed)
    finished = [
        Finished(spec=spec, weights=engine.take_out(slot, fold=fold), fold=fold)
        for slot, (spec, _) in zip(slots, heads, strict=True)
        for fold in numbers
    ]
    found = iter(engine.predict_exactly(finished))
    return [np.concatenate([next(found) for _ in numbers]) for _ in heads]


def _train(engine: Engine, folds: Sequence[Rows], views: int, *, epochs: int, batch_size: int, seed: int) -> None:
    """Trains, and keeps of each head in each fold its best epoch, or the last where it counts."""
    best = BestEpochs(engine.last_counts)
    for epoch in range(epochs):
        plan, fold_of_batch = plan_fold_epoch(folds, batch_size=batch_size, views=views, seed=seed, epoch=epoch)
        engine.train_epoch(plan, fold_of_batch)
        scores = engine.validate()
        engine.update_learning_rates(scores.loss)
        engine.keep(best.update(scores, engine.occupied))
