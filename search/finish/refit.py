"""Heads as they leave a study: trained once more on the training and the validation rows together.

Nothing is left to validate on then, so a head trains for the epochs, and with the learning rates, that were found best
where there was something. On a few hundred rows the additional ones are worth as much as the search.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.rows.feed import Feed, plan_epoch
from features.runtime.memory import resident_budget
from heads.bank.backends import default_dtype
from heads.bank.engine import Engine, Newcomer
from heads.bank.shape import BankShape, pages_of
from heads.model.spec import HeadSpec
from heads.model.weights import Weights
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.setup.seeds import derive_seed
from search.training.sizing import BankRequest, whole_bank


@dataclass(frozen=True)
class Candidate:
    """A head to be trained without validation.

    Attributes:
        trial: Number of the trial that it comes from.
        ordinal: Its place in the study, see ``search.trials.ask_tell.Asked``: decides the seed.
        spec: The head.
        epochs: How long it trains.
        rates: Learning rate of each of these epochs.
    """

    trial: int
    ordinal: int
    spec: HeadSpec
    epochs: int
    rates: Sequence[float]


@dataclass(frozen=True)
class Refit:
    """A head that was trained on all rows but those of the test.

    Attributes:
        trial: Number of the trial that it comes from.
        spec: The head.
        weights: After its last epoch, in the order of ``model.get_weights()``.
        epochs: How long it trained.
        rows: Rows that it trained on.
    """

    trial: int
    spec: HeadSpec
    weights: Weights
    epochs: int
    rows: int


def refit(candidates: Sequence[Candidate], config: StudyConfig, data: SearchData) -> dict[int, Refit]:
    """Trains heads in one bank, each for its own number of epochs; in several where memory asks for it.

    Returns:
        By trial number; a head that diverged is left out.
    """
    found: dict[int, Refit] = {}
    left = list(candidates)
    while left:
        gc.collect()
        feed = _feed(data)
        plan = plan_epoch(feed.rows, batch_size=config.batch_size, views=feed.views, seed=0, epoch=0)
        request = BankRequest(
            specs=[candidate.spec for candidate in left],
            feature_shape=feed.shape,
            classes=len(data.store.classes),
            batch=plan.rows.shape[1],
            folds=1,
            dtype=config.dtype or default_dtype(),
        )
        shape = whole_bank(request)
        now = _fitting(left, shape)
        found |= _train(now, shape, feed, config, data)
        left = left[len(now) :]
    return found


def _feed(data: SearchData) -> Feed:
    """The rows to train on; the features are held by the bank."""
    return Feed(*data.all_but_test, memory_bytes=0)


def _fitting(candidates: Sequence[Candidate], shape: BankShape) -> list[Candidate]:
    """As many of the first ones as there are pages for; the widest fits by itself."""
    taken: list[Candidate] = []
    for candidate in candidates:
        if sum(pages_of(one.spec) for one in [*taken, candidate]) > shape.pages:
            break
        taken.append(candidate)
    return taken


def _train(
    candidates: Sequence[Candidate], shape: BankShape, feed: Feed, config: StudyConfig, data: SearchData
) -> dict[int, Refit]:
    size = 2 if (config.dtype or default_dtype()) == "bfloat16" else 4
    held = len(feed.rows) * feed.store.header.row_values * size
    engine = Engine(
        shape,
        train=feed,
        dtype=config.dtype,
        resident=held <= resident_budget(),
        class_weights=data.class_weights(config.class_weights),
    )
    newcomers = [
        Newcomer(spec=one.spec, seeds=(derive_seed(config.seed, "refit", one.ordinal),), epochs=one.epochs)
        for one in candidates
    ]
    slots = dict(zip(engine.insert(newcomers), candidates, strict=True))
    plan_seed = derive_seed(config.seed, "refit batches")
    found: dict[int, Refit] = {}
    for epoch in range(max(candidate.epochs for candidate in candidates)):
        rates = engine.learning_rates.rates.copy()
        for slot, candidate in slots.items():
            rates[0, slot] = candidate.rates[min(epoch, len(candidate.rates) - 1)]
        engine.set_learning_rates(rates)
        plan = plan_epoch(feed.rows, batch_size=config.batch_size, views=feed.views, seed=plan_seed, epoch=epoch)
        engine.train_epoch(plan)
        done = {slot: candidate for slot, candidate in slots.items() if candidate.epochs == epoch + 1}
        for slot, one in done.items():
            weights = engine.take_out(slot, which="current")
            if all(np.isfinite(array).all() for array in weights):
                found[one.trial] = Refit(one.trial, one.spec, weights, one.epochs, len(feed.rows))
            del slots[slot]
        engine.remove(done)
    return found
