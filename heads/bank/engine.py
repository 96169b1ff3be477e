"""A bank at work: features on the device, heads in and out, whole epochs as one compiled program (docs/bank.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

from features.rows.feed import EpochPlan, Feed
from features.store.schema import Rows
from heads.bank.backends import default_dtype, make_program
from heads.bank.exact import Finished, predict_exactly
from heads.bank.head_state import HeadState, head_state, part_of
from heads.bank.learning_rates import LearningRates
from heads.bank.packing import HeadArrays, listed, named, unpack
from heads.bank.pages import PageTable, Placement
from heads.bank.program import Held, Program, TrainingPlan, aligned
from heads.bank.settings import HostSettings, bank_settings
from heads.bank.shape import BankShape, StatePart
from heads.bank.validation_rows import ValidationRows
from heads.bank.writes import HeadWrites
from heads.metrics.scoring import EPOCH_VIEW, Objective, Probabilities, Score, Scores, score, score_all
from heads.model.arguments import require
from heads.model.spec import HeadSpec
from heads.model.weights import Weights, initial_weights

DTYPES = ("bfloat16", "float32")
_HELD_ROWS = 256  # read at once while features are copied to the device
_PART_OF: dict[Literal["best", "current"], StatePart] = {"best": "best", "current": "weights"}


@dataclass(frozen=True, kw_only=True)
class Newcomer:
    """A trial that moves in.

    Attributes:
        spec: Its head.
        seeds: One for each fold: first weights (``heads.model.weights.initial_weights``) and dropout masks.
        epochs: How long it trains; a head whose rate follows a cosine needs to know.
        states: One for each fold, from ``Engine.save_state``, to go on where it was; seeds are then the saved ones.
        placement: Where it was, see ``Engine.placement_of``; taken again if it is free.
    """

    spec: HeadSpec
    seeds: tuple[int, ...] = ()
    epochs: int | None = None
    states: tuple[HeadState, ...] | None = None
    placement: Placement | None = None


class Engine:
    """Trains a bank.

    Every result per head is an array (folds, slots); of free slots it holds NaN. A slot is a trial's place, the same
    in all folds.

    Args:
        shape: What the bank has room for.
        train: Rows to train on; with folds, all of them.
        validation: Rows to score on; None: those of ``train``.
        validation_rows: For each fold the rows of ``validation`` that score its head; by default all of them, which
            goes with one fold only.
        dtype: Of products and stored activations; by default what ``default_dtype`` says.
        resident: Whether features are held on the device as a whole; by default where the feeds hold them in memory.
        objective: What the ranking score is that ``validate`` returns, see ``heads.metrics.scoring``.
        class_weights: What a row of each class counts in the training loss; 1 by default.

    Raises:
        ValueError: Feeds and shape do not fit together.

    Attributes:
        shape: As given.
        dtype: In force.
        objective: As given.
        table: Who owns which page; read only.
        learning_rates: Of all heads; read only, see ``update_learning_rates``.
        specs: The head of each slot, or None.
    """

    def __init__(
        self,
        shape: BankShape,
        *,
        train: Feed,
        validation: Feed | None = None,
        validation_rows: Sequence[Rows] | None = None,
        dtype: str | None = None,
        resident: bool | None = None,
        objective: Objective = "accuracy",
        class_weights: Sequence[float] | None = None,
    ) -> None:
        self.shape, self.dtype, self.objective = shape, dtype or default_dtype(), objective
        self._class_weights = np.asarray(class_weights or [1] * shape.classes, np.float32)
        self._train, self._validation = train, validation or train
        rows = [self._validation.rows] if validation_rows is None else list(validation_rows)
        require("dtype", self.dtype, " or ".join(DTYPES), self.dtype in DTYPES)
        require("folds of validation rows", len(rows), str(shape.folds), len(rows) == shape.folds)
        for feed in (self._train, self._validation):
            require("feature shape", feed.shape, str(shape.feature_shape), feed.shape == shape.feature_shape)
        self.table = PageTable(shape)
        self.learning_rates = LearningRates((shape.folds, shape.slots))
        self.specs: list[HeadSpec | None] = [None] * shape.slots
        self._seeds = np.zeros((shape.folds, shape.slots), np.int64)
        self._mask_seeds = np.zeros((shape.folds, shape.slots), np.int32)
        self._scoring = ValidationRows.of(rows, self._validation, shape.batch)
        self._program = make_program(shape, self.dtype, self._scoring.batch)
        held = self._train.resident and self._validation.resident if resident is None else resident
        self._held = [_hold(self._program, feed, self.dtype) for feed in self._feeds()] if held else None

    @property
    def traces(self) -> int:
        """How often a training or scoring program was compiled since the start."""
        return self._program.traces

    @property
    def occupied(self) -> npt.NDArray[np.bool_]:
        """(folds, slots): where there is a head."""
        return self._by_slot([spec is not None for spec in self.specs])

    @property
    def last_counts(self) -> npt.NDArray[np.bool_]:
        """(folds, slots): whose head is what its last epoch makes of it, see ``HeadSpec.last_counts``."""
        return self._by_slot([spec is not None and spec.last_counts for spec in self.specs])

    def _by_slot(self, values: Sequence[bool]) -> npt.NDArray[np.bool_]:
        return np.broadcast_to(np.array(values, bool), (self.shape.folds, self.shape.slots))

    def epoch_flops(self, steps: int) -> int:
        """Floating-point operations in the matrix products of a training epoch that the heads in the bank need."""
        return steps * self.shape.step_flops(spec for spec in self.specs if spec is not None)

    # --- heads in and out -------------------------------------------------------------------------------------

    def insert(self, newcomers: Sequence[Newcomer]) -> list[int]:
        """Moves trials in, all in one write.

        Returns:
            Their slots.

        Raises:
            ValueError: A head is of a kind that the bank was not made for, or there is no room; nothing has changed.
        """
        free, needed = self.table.free_room, self.shape.needed_by(newcomer.spec for newcomer in newcomers)
        require("free pages, slots and tiles", tuple(needed), f"at most {tuple(free)}", free.holds(needed))
        for newcomer in newcomers:
            self.shape.require(newcomer.spec)
            given = len(newcomer.seeds if newcomer.states is None else newcomer.states)
            endless = newcomer.states is None and newcomer.spec.follows_cosine and not newcomer.epochs
            require("epochs", newcomer.epochs, "a number, which a cosine needs", not endless)
            require("seeds or states", given, f"one for each of {self.shape.folds} folds", given == self.shape.folds)
        write = HeadWrites(self.shape)
        slots = [self._settle(newcomer, write) for newcomer in newcomers]
        write.run(self._program)
        return slots

    def _settle(self, newcomer: Newcomer, write: HeadWrites) -> int:
        spec = newcomer.spec
        slot = self.table.place(spec, wanted=newcomer.placement)
        self.specs[slot] = spec
        where = self.table.places_of(slot)
        for fold in range(self.shape.folds):
            place = fold, slot
            if newcomer.states is None:
                seed = newcomer.seeds[fold]
                self.learning_rates.start(place, spec, newcomer.epochs)
                weights = initial_weights(spec, self.shape.feature_shape, self.shape.classes, seed=seed)
                write.add(fold, where, spec, {"weights": named(spec, weights)}, steps=0)
            else:
                state = newcomer.states[fold]
                seed = int(state["seed"])
                self.learning_rates.load(place, part_of(state, "plateau"))
                parts = {part: part_of(state, part) for part in self.shape.state_parts}
                write.add(fold, where, spec, parts, steps=int(state["steps"]))
            self._seeds[place], self._mask_seeds[place] = seed, mask_seed(seed)
        return slot

    def remove(self, slots: Iterable[int]) -> None:
        """Frees slots and zeroes what lay in them.

        Raises:
            KeyError: A slot holds no head.
        """
        write = HeadWrites(self.shape)
        for slot in slots:
            where = self.table.release(slot)
            for fold in range(self.shape.folds):
                write.clear(fold, where)
            self.specs[slot] = None
            self.learning_rates.rates[:, slot] = 0
        write.run(self._program)

    def placement_of(self, slot: int) -> Placement:
        """Returns where a head lies: its slot and its pages.

        Raises:
            KeyError: The slot holds no head.
        """
        return slot, tuple(self.table.pages_of_slot(slot).tolist())

    def take_out(self, slot: int, *, fold: int = 0, which: Literal["best", "current"] = "best") -> Weights:
        """Copies a head's weights to the host, in the order of ``model.get_weights()``; the head stays.

        Args:
            slot: The trial's slot.
            fold: Which of its heads.
            which: ``best`` (as last kept, see ``keep``) or ``current``.
        """
        spec = self._spec(slot)
        return listed(spec, self._read(_PART_OF[which], slot, fold))

    def save_state(self, slot: int, *, fold: int = 0) -> HeadState:
        """Copies everything that a head's further training depends on, in the head's own shapes.

        Returns:
            What ``Newcomer`` brings back.
        """
        spec = self._spec(slot)
        return head_state(
            spec,
            seed=self._seeds[fold, slot],
            steps=self._program.read("counters", fold, self.table.places_of(slot))["slots"]["steps"][0],
            rates=self.learning_rates.save((fold, slot)),
            parts={part: self._read(part, slot, fold) for part in self.shape.state_parts},
        )

    def _read(self, part: StatePart, slot: int, fold: int) -> HeadArrays:
        return unpack(self.shape, self._spec(slot), self._program.read(part, fold, self.table.places_of(slot)))

    def _spec(self, slot: int) -> HeadSpec:
        spec = self.specs[slot]
        if spec is None:
            raise KeyError(f"slot {slot} holds no head")
        return spec

    # --- an epoch ---------------------------------------------------------------------------------------------

    def train_epoch(self, plan: EpochPlan, fold_of_batch: npt.NDArray[Any] | None = None) -> npt.NDArray[np.float32]:
        """Trains every head on an epoch's batches.

        Args:
            plan: (steps, batch) rows and views; on JAX a new number of steps compiles anew.
            fold_of_batch: (steps,) with folds: the fold that each batch is drawn from. Its heads sit the batch out.

        Returns:
            (folds, slots): mean training loss over the batches that a head trained on.
        """
        steps, batch = plan.rows.shape
        require("rows in a batch", batch, str(self.shape.batch), batch == self.shape.batch)
        with_folds = self.shape.folds > 1
        given = fold_of_batch is not None
        require("fold_of_batch given", given, f"{with_folds} with {self.shape.folds} folds", given == with_folds)
        folds = np.zeros(steps, np.int32) if fold_of_batch is None else np.asarray(fold_of_batch, np.int32)
        if self._held:
            labels = np.asarray(self._train.store.labels[plan.rows], np.int32)
            planned = TrainingPlan(_places(self._train, plan.rows, plan.views), labels, folds)
            losses = self._program.train_epoch(self._settings(), self._held[0], planned)
        else:
            losses = self._program.train_stream(self._settings(), self._train.train_batches(plan), folds)
        sat_out = np.bincount(folds, minlength=self.shape.folds) if with_folds else np.zeros(1, np.int64)
        return self._of_heads(losses / np.maximum(steps - sat_out, 1)[:, None].astype(np.float32))

    def validate(self) -> Scores:
        """Scores every head on the first view of its validation rows.

        Returns:
            (folds, slots) each; of probabilities computed in the bank's dtype. ``predict_exactly`` takes all views.
        """
        rows, settings = self._scoring, self._settings()
        found: Iterable[npt.NDArray[np.float32]]
        if self._held:
            held = self._held[-1]
            places = _places(self._validation, rows.rows, EPOCH_VIEW)
            plans = rows.plans(places, 4 * rows.batch * self.shape.slots * self.shape.classes)
            found = (batch for plan in plans for batch in self._program.predict_held(settings, held, plan))
        else:
            found = self._program.predict_stream(settings, rows.batches(self._validation))
        slots = self._scored_slots()
        scores = np.full((3, self.shape.folds, self.shape.slots), np.nan)
        for fold, predicted in enumerate(rows.by_fold(found, slots)):
            scores[:, fold, slots] = score_all(*predicted, self.objective)
        return Scores(*(self._of_heads(numbers) for numbers in scores))

    def _scored_slots(self) -> npt.NDArray[np.integer]:
        """Slots with a head, and a free one, if there is one: NumPy adds up what has a single column in another way."""
        taken = self.occupied[0]
        return np.sort(np.concatenate([np.flatnonzero(taken), np.flatnonzero(~taken)[:1]]))

    def keep(self, improved: npt.NDArray[np.bool_]) -> None:
        """Makes the current weights of some heads their best ones: (folds, slots) bool."""
        if improved.any():
            self._program.keep(improved, self.table.owner, self.table.page_of_tile)

    def update_learning_rates(self, losses: npt.NDArray[Any]) -> None:
        """Sets the rates of the next epoch by the heads' own schedules and this one's validation losses."""
        self.learning_rates.update(losses, self.occupied)

    def set_learning_rates(self, rates: npt.NDArray[Any]) -> None:
        """Sets the rates, (folds, slots), for other schedules than the heads' own."""
        self.learning_rates.rates[:] = rates

    def predict_exactly(self, heads: Sequence[Finished]) -> list[Probabilities]:
        """Predicts validation rows in float32 on the features as stored: as plain Keras does with the exported file.

        Args:
            heads: Any number, of any kinds; those of one fold share a small bank of their own.

        Returns:
            For each head (rows of its fold, classes), averaged over the views; the rows in the order of
            ``validation_rows``.
        """
        found: dict[int, Probabilities] = {}
        for fold in sorted({head.fold for head in heads}):
            chosen = [number for number, head in enumerate(heads) if head.fold == fold]
            rows = self._scoring.rows_of[fold]
            mine = [heads[number] for number in chosen]
            predicted = predict_exactly(mine, self._validation, rows, self.shape, self._program.exact)
            found.update(zip(chosen, predicted, strict=True))
        return [found[number] for number in range(len(heads))]

    def score_predicted(self, probabilities: Probabilities, *, fold: int = 0) -> Score:
        """Scores probabilities of a fold's validation rows, (rows, classes)."""
        return score(probabilities, self._validation.store.labels[self._scoring.rows_of[fold]], self.objective)

    def _settings(self) -> HostSettings:
        return bank_settings(
            self.shape,
            self.table,
            self.specs,
            rates=self.learning_rates.rates.copy(),
            seeds=self._mask_seeds.copy(),
            class_weights=self._class_weights,
        )

    def _of_heads(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.where(self.occupied, values, np.array(np.nan, values.dtype))

    def _feeds(self) -> list[Feed]:
        same = self._validation is self._train
        return [self._train] if same else [self._train, self._validation]


def mask_seed(seed: int) -> int:
    """Returns the seed of a head's dropout masks, below 2^31, so that it fits an int32."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1)


def _hold(program: Program, feed: Feed, dtype: str) -> Held:
    """Brings a feed's features to the device: (rows · views, positions · channels) in the products' dtype."""
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
    held = aligned((len(feed.rows), feed.views, int(np.prod(feed.shape))), kind)
    for start in range(0, len(feed.rows), _HELD_ROWS):
        rows = feed.rows[start : start + _HELD_ROWS]
        for view in range(feed.views):
            held[start : start + len(rows), view] = feed.take(rows, view).reshape(len(rows), -1)
    return program.hold(held.reshape(-1, held.shape[-1]))


def _places(feed: Feed, rows: npt.NDArray[np.int64], views: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int32]:
    """Where rows of a feed, each in its view, are in what ``_hold`` makes of it."""
    return (np.searchsorted(feed.rows, rows) * feed.views + views).astype(np.int32)
