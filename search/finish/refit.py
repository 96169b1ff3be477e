"""Heads as they leave a study: trained once more on the training and the validation rows together.

Nothing is left to validate on then, so a head trains for the epochs, and with the learning rates, that it had where
there was something. On a few hundred rows the additional ones are worth as much as the search.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.rows.feed import Feed, plan_epoch
from features.runtime.keras_settings import separate_keras_session
from features.runtime.memory import resident_budget
from features.runtime.stopping import heeding_stops
from heads.bank.backends import bank_budget
from heads.bank.engine import Engine, Newcomer
from heads.bank.shape import BankShape, pages_of
from heads.model.fit import Batches, Schedule
from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from heads.model.stepwise import TrainingError, own_trainee, seeded, train_for
from heads.model.weights import Weights
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.setup.own_head import BuildError, OwnHead
from search.setup.seeds import refit_batches_seed, refit_seed
from search.setup.stores import StudyData
from search.training.sizing import BankRequest, bytes_of_features, memory_for, whole_bank

_DIVERGED = "it diverged"


@dataclass(frozen=True)
class ToRefit:
    """A head to be trained without validation.

    Attributes:
        trial: Number of the trial that it comes from.
        ordinal: Of that trial, see ``search.trials.ask_tell.Asked``: decides the seed.
        head: The head.
        epochs: How long it trains.
        rates: Learning rate of each of these epochs.
        store: Name of the store that it trains on; '' in a study of one.
        copies: How many there are to be, from as many seeds.
    """

    trial: int
    ordinal: int
    head: HeadSpec | OwnSpec
    epochs: int
    rates: Sequence[float]
    store: str = ""
    copies: int = 1

    @property
    def spec(self) -> HeadSpec:
        """The head, of those that a bank trains."""
        assert isinstance(self.head, HeadSpec)
        return self.head


@dataclass(frozen=True)
class Refit:
    """A head that was trained on all rows but those of the test.

    Attributes:
        trial: Number of the trial that it comes from.
        head: The head.
        weights: After its last epoch, in the order of ``model.get_weights()``.
        epochs: How long it trained.
        rows: Rows that it trained on.
        store: Name of the store that they are from; '' in a study of one.
        more: Weights of its further copies, those left out that diverged.
    """

    trial: int
    head: HeadSpec | OwnSpec
    weights: Weights
    epochs: int
    rows: int
    store: str = ""
    more: tuple[Weights, ...] = ()

    @property
    def copies(self) -> int:
        """Heads that there are."""
        return 1 + len(self.more)


def refit(
    to_refit: Sequence[ToRefit], config: StudyConfig, data: StudyData, own: OwnHead | None = None
) -> tuple[dict[int, Refit], dict[int, str]]:
    """Trains heads in one bank per store, each for its own number of epochs; in several where memory asks for it.

    Those of somebody's own function are trained one after the other.

    Returns:
        The heads, and of each that could not be trained the reason; both by trial number.
    """
    found: dict[int, Refit] = {}
    lost: dict[int, str] = {}
    for one in to_refit:
        if isinstance(one.head, OwnSpec):
            try:
                found[one.trial] = _train_alone(one, own, config, data.first)
            except (BuildError, TrainingError) as error:
                lost[one.trial] = str(error)
    for store, rows in data.named.items():
        left = [one for one in to_refit if isinstance(one.head, HeadSpec) and one.store == store]
        found |= _in_banks(left, config, rows)
    return found, {one.trial: _DIVERGED for one in to_refit if one.trial not in found} | lost


def _in_banks(to_refit: Sequence[ToRefit], config: StudyConfig, data: SearchData) -> dict[int, Refit]:
    """Trains heads of one store."""
    found: dict[int, Refit] = {}
    left = list(to_refit)
    while left:
        gc.collect()
        feed = _feed(data)
        specs = [one.spec for one in left for _ in range(one.copies)]
        shape = whole_bank(BankRequest.unscored(specs, config, feed))
        now = _fitting(left, shape) or [replace(left[0], copies=1)]  # copies are let go of before a head is
        with memory_for(shape.pages):
            found |= _train(now, shape, feed, config, data)
        left = left[len(now) :]
    return found


def _feed(data: SearchData) -> Feed:
    """The rows to train on; the features are held by the bank."""
    return Feed(*data.all_but_test, memory_bytes=0)


def _train_alone(one: ToRefit, own: OwnHead | None, config: StudyConfig, data: SearchData) -> Refit:
    """Trains a head of somebody's own function.

    Raises:
        BuildError: The function does not make it any more.
        TrainingError: It diverged, or could not be trained.
    """
    assert own is not None
    assert isinstance(one.head, OwnSpec)
    source, rows = data.all_but_test
    feed = Feed(source, rows, memory_bytes=resident_budget() // 2)
    seed = refit_seed(config.seed, one.ordinal)
    schedule = Schedule(
        epochs=one.epochs,
        batch_size=config.batch_size,
        plan_seed=refit_batches_seed(config.seed),
        class_weights=data.class_weights(config.class_weights, feed.labels),
    )
    with separate_keras_session():
        trainee = own_trainee(own.rebuild(one.head, seed=seed, number=one.trial), own.function.where)
        batches = Batches(feed, schedule, one_hot=trainee.one_hot)
        with seeded(seed):
            weights = train_for(trainee, batches, one.rates, epochs=one.epochs)
    if not all(np.isfinite(array).all() for array in weights):
        raise TrainingError(_DIVERGED)
    return Refit(one.trial, one.head, weights, one.epochs, len(rows))


def _fitting(to_refit: Sequence[ToRefit], shape: BankShape) -> list[ToRefit]:
    """As many of the first ones as there are pages for; the widest fits by itself."""
    taken: list[ToRefit] = []
    for head in to_refit:
        if sum(one.copies * pages_of(one.spec) for one in [*taken, head]) > shape.pages:
            break
        taken.append(head)
    return taken


def _train(
    to_refit: Sequence[ToRefit], shape: BankShape, feed: Feed, config: StudyConfig, data: SearchData
) -> dict[int, Refit]:
    engine = Engine(
        shape,
        train=feed,
        dtype=config.dtype,
        resident=bytes_of_features([feed], config.dtype) <= bank_budget(),
        class_weights=data.class_weights(config.class_weights, feed.labels),
    )
    copies = [(one, copy) for one in to_refit for copy in range(one.copies)]
    newcomers = [
        Newcomer(spec=one.spec, seeds=(refit_seed(config.seed, one.ordinal, copy),), epochs=one.epochs)
        for one, copy in copies
    ]
    slots = dict(zip(engine.insert(newcomers), copies, strict=True))
    plan_seed = refit_batches_seed(config.seed)
    found: dict[tuple[int, int], Weights] = {}
    with heeding_stops(at_once=True) as stop:
        for epoch in range(max(one.epochs for one in to_refit)):
            rates = engine.learning_rates.rates.copy()
            for slot, (one, _) in slots.items():
                rates[0, slot] = one.rates[min(epoch, len(one.rates) - 1)]
            engine.set_learning_rates(rates)
            plan = plan_epoch(feed.rows, batch_size=config.batch_size, views=feed.views, seed=plan_seed, epoch=epoch)
            engine.train_epoch(plan)
            done = {slot: place for slot, place in slots.items() if place[0].epochs == epoch + 1}
            for slot, (one, copy) in done.items():
                weights = engine.take_out(slot, which="current")
                if all(np.isfinite(array).all() for array in weights):
                    found[one.trial, copy] = weights
                del slots[slot]
            engine.remove(done)
            stop.take_effect()
    return {one.trial: made for one in to_refit if (made := _refit(one, found, len(feed.rows))) is not None}


def _refit(one: ToRefit, found: Mapping[tuple[int, int], Weights], rows: int) -> Refit | None:
    """What became of a head; None where its first copy diverged."""
    weights = found.get((one.trial, 0))
    if weights is None:
        return None
    more = tuple(found[one.trial, copy] for copy in range(1, one.copies) if (one.trial, copy) in found)
    return Refit(one.trial, one.spec, weights, one.epochs, rows, one.store, more)
