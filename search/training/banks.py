"""The banks of a study, one for each of its stores, which train in turn and share out the pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.rows.feed import EpochPlan
from heads.bank.engine import Engine, Newcomer
from heads.bank.exact import Finished
from heads.bank.head_state import HeadState
from heads.bank.pages import Placement
from heads.bank.shape import BankShape
from heads.metrics.scoring import Probabilities, Score, Scores
from heads.model.spec import HeadSpec
from heads.model.weights import Weights
from search.setup.config import StudyConfig
from search.setup.data import SearchData, plan_of
from search.setup.stores import StudyData
from search.training.bank_shapes import BankShapes
from search.training.banked_trial import BankedTrial
from search.training.sizing import bytes_of_features, features_budget


@dataclass(frozen=True)
class Trained:
    """What an epoch made of the heads in one bank.

    Attributes:
        losses: (folds, slots) mean training loss.
        scores: (folds, slots) each, on the validation rows.
        rates: (folds, slots) learning rates that they trained with.
        operations: Floating-point operations in the matrix products that they needed.
    """

    losses: npt.NDArray[Any]
    scores: Scores
    rates: npt.NDArray[Any]
    operations: int

    def loss_of(self, slot: int) -> float:
        """Training loss of a trial, the mean over the folds."""
        return float(self.losses[:, slot].mean())

    def score_of(self, slot: int) -> Score:
        """Score of a trial, the mean over the folds."""
        return Score(*(float(numbers[:, slot].mean()) for numbers in self.scores))

    def rate_of(self, slot: int) -> float:
        """Learning rate of a trial, the mean over the folds."""
        return float(self.rates[:, slot].mean())


@dataclass(frozen=True)
class Arrival:
    """A trial that moves in, and the store that it trains on."""

    store: str
    newcomer: Newcomer


class FreeRoom:
    """What is free, while it is decided who moves in."""

    def __init__(self, pages: int, engines: Mapping[str, Engine]) -> None:
        self._pages = pages
        self._room_of = {name: one.table.free_room for name, one in engines.items()}
        self._needed_by = {name: one.shape.needed_by for name, one in engines.items()}

    @property
    def is_left(self) -> bool:
        """Whether a head could move in, if it were narrow enough."""
        return self._pages > 0 and any(room.pages > 0 and room.slots > 0 for room in self._room_of.values())

    def fits(self, store: str, spec: HeadSpec) -> bool:
        """Whether there is room for a head."""
        needed = self._needed_by[store]([spec])
        return needed.pages <= self._pages and self._room_of[store].holds(needed)

    def take(self, store: str, spec: HeadSpec) -> None:
        """Takes the room that a head needs."""
        needed = self._needed_by[store]([spec])
        self._room_of[store] = self._room_of[store].minus(needed)
        self._pages -= needed.pages


class Banks:
    """One bank for each store.

    Attributes:
        shapes: By the store's name.
        folds: Heads of a trial.
        pages: That may be in use at once, in all banks together.
    """

    def __init__(self, shapes: BankShapes, data: Mapping[str, SearchData], config: StudyConfig) -> None:
        """Makes empty banks; features are held where they fit into memory, the first store's first.

        Args:
            shapes: Which, of what size.
            data: Rows to train and validate on, by the store's name.
            config: What was resolved.

        Raises:
            InputError: A store was written to since it was opened.
        """
        self.shapes = dict(shapes.by_store)
        self.folds = shapes.first.folds
        self.pages = shapes.pages
        self._config = config
        self._data = {name: data[name] for name in self.shapes}
        self._engines: dict[str, Engine] = {}
        held = self._held()
        for name, shape in self.shapes.items():
            self._engines[name] = _engine(shape, self._data[name], config, resident=name in held)
        self._require_unchanged()

    def _held(self) -> set[str]:
        """The stores whose features are held in memory, in their order, as far as the budget of all of them goes.

        It is asked for once, before any are held: half of what is left, again for each store, is nearly all in the end.
        """
        left = features_budget(self.shapes, self._data, self._config)
        held = set()
        for name, data in self._data.items():
            feeds = [data.train] if data.folds else [data.train, data.validation]
            if (needed := bytes_of_features(feeds, self._config.dtype)) <= left:
                held.add(name)
                left -= needed
        return held

    @property
    def used(self) -> int:
        """Pages in use."""
        return sum(one.shape.pages - one.table.free for one in self._engines.values())

    @property
    def room(self) -> FreeRoom:
        """What is free."""
        return FreeRoom(self.pages - self.used, self._engines)

    @property
    def epoch_flops(self) -> int:
        """Floating-point operations in the matrix products of a training epoch that the heads in the banks need."""
        return sum(one.epoch_flops(len(self._plan(name, epoch=0)[0])) for name, one in self._engines.items())

    def _plan(self, store: str, *, epoch: int) -> tuple[EpochPlan, npt.NDArray[np.int32] | None]:
        return plan_of(self._data[store], self._config.batch_size, self._config.seed, epoch)

    def insert(self, arriving: Sequence[Arrival]) -> list[int]:
        """Moves trials in, those of a bank in one write; returns their slots.

        Raises:
            ValueError: As ``Engine.insert``.
        """
        slots: dict[int, int] = {}
        for name, engine in self._engines.items():
            mine = [index for index, one in enumerate(arriving) if one.store == name]
            slots |= dict(zip(mine, engine.insert([arriving[index].newcomer for index in mine]), strict=True))
        return [slots[index] for index in range(len(arriving))]

    def remove(self, trials: Iterable[BankedTrial]) -> None:
        """Frees the places of trials."""
        for name, slots in _slots_of(trials).items():
            self._engines[name].remove(sorted(slots))

    def train(self, epoch: int, trials: Sequence[BankedTrial]) -> dict[str, Trained]:
        """Trains and scores each bank that has heads, and sets their next learning rates.

        Raises:
            InputError: A store was written to: what was found of it is worth nothing.
        """
        found = {}
        for name in _slots_of(trials):
            engine = self._engines[name]
            plan, fold_of_batch = self._plan(name, epoch=epoch)
            losses = engine.train_epoch(plan, fold_of_batch)
            scores = engine.validate()
            rates = engine.learning_rates.rates.copy()
            engine.update_learning_rates(scores.loss)
            found[name] = Trained(losses, scores, rates, engine.epoch_flops(len(plan)))
        self._require_unchanged()
        return found

    @property
    def traces(self) -> int:
        """How often a program was compiled."""
        return sum(engine.traces for engine in self._engines.values())

    def keep(self, improved: Sequence[BankedTrial]) -> None:
        """Makes the current weights of some trials' heads their best ones."""
        for name, slots in _slots_of(improved).items():
            engine = self._engines[name]
            engine.keep(_marked((self.folds, engine.shape.slots), slots))

    def take_out(self, banked: BankedTrial) -> list[Weights]:
        """Copies the best weights of a trial, one list for each fold; its heads stay."""
        return [self._engines[banked.store].take_out(banked.slot, fold=fold) for fold in range(self.folds)]

    def predict_exactly(
        self, trials: Sequence[BankedTrial], weights: Sequence[Sequence[Weights]]
    ) -> list[list[tuple[Probabilities, Score]]]:
        """Predicts and scores finished trials in float32, those of a bank together, see ``Engine.predict_exactly``.

        Args:
            trials: Of any stores.
            weights: Of each, as ``take_out`` returns them.

        Returns:
            For each trial what the head of each fold gives.

        Raises:
            InputError: A store was written to.
        """
        predicted: list[list[tuple[Probabilities, Score]]] = [[] for _ in trials]
        for store in dict.fromkeys(banked.store for banked in trials):
            engine = self._engines[store]
            heads = {
                (index, fold): Finished(spec=banked.asked.spec, weights=of_fold, fold=fold)
                for index, banked in enumerate(trials)
                if banked.store == store
                for fold, of_fold in enumerate(weights[index])
            }
            exact = engine.predict_exactly(list(heads.values()))
            self._require_unchanged()
            for (index, fold), probabilities in zip(heads, exact, strict=True):
                predicted[index].append((probabilities, engine.score_predicted(probabilities, fold=fold)))
        return predicted

    def _require_unchanged(self) -> None:
        StudyData(self._data).require_unchanged()

    def placement_of(self, banked: BankedTrial) -> Placement:
        """Returns where a trial's heads lie, see ``Engine.placement_of``."""
        return self._engines[banked.store].placement_of(banked.slot)

    def save_state(self, banked: BankedTrial) -> tuple[HeadState, ...]:
        """Copies all that a trial's further training depends on, of each fold's head."""
        engine = self._engines[banked.store]
        return tuple(engine.save_state(banked.slot, fold=fold) for fold in range(self.folds))


def _slots_of(trials: Iterable[BankedTrial]) -> dict[str, list[int]]:
    """The slots of some trials, by their store."""
    found: dict[str, list[int]] = {}
    for banked in trials:
        found.setdefault(banked.store, []).append(banked.slot)
    return found


def _marked(shape: tuple[int, ...], slots: Sequence[int]) -> npt.NDArray[np.bool_]:
    marked = np.zeros(shape, bool)
    marked[:, list(slots)] = True
    return marked


def _engine(shape: BankShape, data: SearchData, config: StudyConfig, *, resident: bool) -> Engine:
    return Engine(
        shape,
        train=data.train,
        validation=data.validation,
        validation_rows=data.folds or None,
        dtype=config.dtype,
        resident=resident,
        objective=config.objective,
        class_weights=data.class_weights(config.class_weights),
    )
