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
    refits: dict[int, Refit] = {}
    lost: dict[int, str] = {}
    for task in to_refit:
        if isinstance(task.head, OwnSpec):
            try:
                refits[task.trial] = _train_alone(task, own, config, data.first)
            except (BuildError, TrainingError) as error:
                lost[task.trial] = str(error)
    for store, rows in data.named.items():
        of_store = [task for task in to_refit if isinstance(task.head, HeadSpec) and task.store == store]
        refits |= _in_banks(of_store, config, rows)
    return refits, {task.trial: _DIVERGED for task in to_refit if task.trial not in refits} | lost


def _in_banks(to_refit: Sequence[ToRefit], config: StudyConfig, data: SearchData) -> dict[int, Refit]:
    """Trains heads of one store."""
    refits: dict[int, Refit] = {}
    left = list(to_refit)
    while left:
        gc.collect()
        feed = Feed(*data.all_but_test, memory_bytes=0)  # the features are held by the bank
        specs = [task.spec for task in left for _ in range(task.copies)]
        shape = whole_bank(BankRequest.unscored(specs, config, feed))
        fitting = _fitting(left, shape) or [replace(left[0], copies=1)]  # copies are let go of before a head is
        with memory_for(shape.pages):
            refits |= _train(fitting, shape, feed, config, data)
        left = left[len(fitting) :]
    return refits


def _train_alone(task: ToRefit, own: OwnHead | None, config: StudyConfig, data: SearchData) -> Refit:
    """Trains a head of somebody's own function.

    Raises:
        BuildError: The function does not make it any more.
        TrainingError: It diverged, or could not be trained.
    """
    assert own is not None
    assert isinstance(task.head, OwnSpec)
    source, rows = data.all_but_test
    feed = Feed(source, rows, memory_bytes=resident_budget() // 2)
    seed = refit_seed(config.seed, task.ordinal)
    schedule = Schedule(
        epochs=task.epochs,
        batch_size=config.batch_size,
        plan_seed=refit_batches_seed(config.seed),
        class_weights=data.class_weights(config.class_weights, feed.labels),
    )
    with separate_keras_session():
        trainee = own_trainee(own.rebuild(task.head, seed=seed, number=task.trial), own.function.where)
        batches = Batches(feed, schedule, one_hot=trainee.one_hot)
        with seeded(seed):
            weights = train_for(trainee, batches, task.rates, epochs=task.epochs)
    if not all(np.isfinite(array).all() for array in weights):
        raise TrainingError(_DIVERGED)
    return Refit(task.trial, task.head, weights, task.epochs, len(rows))


def _fitting(to_refit: Sequence[ToRefit], shape: BankShape) -> list[ToRefit]:
    """As many of the first ones as there are pages for; the widest fits by itself."""
    taken: list[ToRefit] = []
    for next_task in to_refit:
        if sum(task.copies * pages_of(task.spec) for task in [*taken, next_task]) > shape.pages:
            break
        taken.append(next_task)
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
    copies = [(task, copy) for task in to_refit for copy in range(task.copies)]
    newcomers = [
        Newcomer(spec=task.spec, seeds=(refit_seed(config.seed, task.ordinal, copy),), epochs=task.epochs)
        for task, copy in copies
    ]
    training = dict(zip(engine.insert(newcomers), copies, strict=True))
    plan_seed = refit_batches_seed(config.seed)
    trained: dict[tuple[int, int], Weights] = {}
    with heeding_stops(at_once=True) as stop:
        for epoch in range(max(task.epochs for task in to_refit)):
            rates = engine.learning_rates.rates.copy()
            for slot, (task, _) in training.items():
                rates[0, slot] = task.rates[min(epoch, len(task.rates) - 1)]
            engine.set_learning_rates(rates)
            plan = plan_epoch(feed.rows, batch_size=config.batch_size, views=feed.views, seed=plan_seed, epoch=epoch)
            engine.train_epoch(plan)
            done = [slot for slot, (task, _) in training.items() if task.epochs == epoch + 1]
            for slot in done:
                task, copy = training.pop(slot)
                weights = engine.take_out(slot, which="current")
                if all(np.isfinite(array).all() for array in weights):
                    trained[task.trial, copy] = weights
            engine.remove(done)
            stop.take_effect()
    return {task.trial: made for task in to_refit if (made := _refit(task, trained, len(feed.rows))) is not None}


def _refit(task: ToRefit, trained: Mapping[tuple[int, int], Weights], rows: int) -> Refit | None:
    """What became of a head; None where its first copy diverged.

    Args:
        task: The head.
        trained: Weights by trial and copy, of those that did not diverge.
        rows: That they were trained on.
    """
    weights = trained.get((task.trial, 0))
    if weights is None:
        return None
    further = tuple(trained[task.trial, copy] for copy in range(1, task.copies) if (task.trial, copy) in trained)
    return Refit(task.trial, task.spec, weights, task.epochs, rows, task.store, further)
