"""Searches without a compiler: what banks compute is made up, everything around them is real.

Its numbers depend on what a head's do: its own arrays, seed, rate and steps, the batches, and the number of pages that
it shares the bank with, which moves the last bits of a real bank's numbers and here moves more. So a run that goes on
in another bank, or on other batches, than an undisturbed one ends in other numbers.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from features.runtime.files import replacing
from heads.bank.pages import FREE
from heads.bank.shape import BankShape
from heads.bank.state import zero_state
from heads.metrics.scoring import EpochRecord, score
from heads.model.fit import TrainedHead
from heads.model.weights import initial_weights
from search.record.results import OneAtATimeEstimate

DIVERGING = 1e20
"""A learning rate from which made heads, too, come to NaN."""


class MadeProgram:
    """Stands for ``heads.bank.program.Program``."""

    def __init__(self, shape: BankShape, dtype: str, scored: int) -> None:
        self.shape, self.traces, self.exact = shape, 0, None
        self.state = zero_state(shape, np.zeros)
        self._compiled: set[str] = set()

    def hold(self, features):
        return features

    def train_epoch(self, settings, held, plan):
        return self._train(settings, plan.places, len(plan.places))

    def predict_held(self, settings, held, plan):
        self._compile("scoring")
        classes, slots = self.shape.classes, self.shape.slots
        found = np.zeros((*plan.places.shape, slots, classes), np.float32)
        for batch, (places, fold) in enumerate(zip(plan.places, plan.folds, strict=True)):
            found[batch] = shares(places[:, None], self._numbers(settings, fold)[None], classes)
        return found.swapaxes(1, 2)

    def keep(self, improved, owner, page_of_tile):
        pages = improved[:, owner] & (owner != FREE)
        chosen = {"slots": improved, "pages": pages, "tiles": pages[:, page_of_tile] & (page_of_tile != FREE)}
        for sort, names in self.shape.arrays.items():
            for name in names:
                self.state["best"][name][chosen[sort]] = self.state["weights"][name][chosen[sort]]

    def write(self, sort, where, values):
        for part, arrays in values.items():
            for name, array in arrays.items():
                self.state[part][name][where[:, 0], where[:, 1]] = array

    def read(self, part, fold, where):
        inside = {sort: (*names, "steps") if sort == "slots" else names for sort, names in self.shape.arrays.items()}
        state = self.state[part]
        return {
            sort: {name: state[name][fold, where[sort]] for name in names if name in state}
            for sort, names in inside.items()
        }

    def _compile(self, what: str) -> None:
        self.traces += what not in self._compiled
        self._compiled.add(what)

    def _train(self, settings, places, steps):
        self._compile("training")
        owner, tiles, taken = settings["owner"], settings["page_of_tile"], settings["taken"]
        batches = zlib.crc32(places.tobytes()) % 1000 / 1000
        for fold in range(self.shape.folds):
            moved = settings["learning_rate"][fold] * (1 + batches + 1e-3 * self.shape.pages)
            paged = np.where(owner == FREE, 0, moved[owner])
            steps_of = {
                "pages": paged,
                "tiles": np.where(tiles == FREE, 0, paged[tiles]),
                "slots": np.where(taken, moved, 0),
            }
            sorts = {name: sort for sort, names in self.shape.arrays.items() for name in names}
            for name in self.shape.trained:
                step = steps_of[sorts[name]]
                for part, share in (("first", 0.9), ("second", 0.5), ("weights", 1)):
                    array = self.state[part][name][fold]
                    wide = step.reshape(-1, *[1] * (array.ndim - 1))
                    drawn = np.sin(array * 3 + self.state["weights"][name][fold] + 1) * wide
                    array[:] = np.where(wide != 0, array * share + drawn, array)
            self.state["counters"]["steps"][fold] += np.where(taken, steps, 0).astype(np.int32)
        return np.stack([1 + np.sin(self._numbers(settings, fold)) for fold in range(self.shape.folds)]) * steps

    def _numbers(self, settings, fold) -> np.ndarray:
        """(slots,) one number for each head, of all that it is."""
        numbers = settings["seed"][fold] % 1000 * 1e-3 + self.state["counters"]["steps"][fold] * 1e-2
        sums = self.state["weights"]["kernel"][fold].reshape(self.shape.pages, -1).sum(axis=1)
        owned = settings["owner"] != FREE
        np.add.at(numbers, settings["owner"][owned], sums[owned])
        numbers = np.where(settings["learning_rate"][fold] > DIVERGING, np.nan, numbers)
        return np.where(settings["taken"], numbers, 0).astype(np.float32)


def shares(rows: np.ndarray, numbers: np.ndarray, classes: int) -> np.ndarray:
    """(rows, numbers, classes) probabilities that depend on row and number."""
    scores = np.sin(rows[..., None] * (1 + np.arange(classes)) + numbers[..., None])
    return (np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)).astype(np.float32)


def number_of(weights: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([sum(float(np.abs(array, dtype=np.float64).sum()) for array in weights)])


def predict(heads, feed, rows, shape, compiled):
    """Stands for ``predict_exactly``."""
    return [shares(rows[:, None], number_of(head.weights)[None], shape.classes)[:, 0] for head in heads]


def train(spec, feed, validation, schedule, *, seed, on_epoch):
    """Stands for ``train_solo``: weights wander, and the best epoch's are returned."""
    weights = initial_weights(spec, feed.shape, len(feed.store.classes), seed=seed)
    best, kept, called, curve = None, weights, None, []
    for epoch in range(1, schedule.epochs + 1):
        weights = [np.abs(array + np.float32(0.01) * np.sin(array * epoch)) for array in weights]
        found = shares(validation.rows[:, None], number_of(weights)[None], len(feed.store.classes))[:, 0]
        curve.append(EpochRecord(epoch, 1.0, score(found, validation.labels), spec.learning_rate))
        if curve[-1].replaces(best, last_counts=schedule.last_counts):
            best, kept, called = curve[-1], weights, found
        if not on_epoch(curve[-1]):
            break
    return TrainedHead(spec, kept, best, tuple(curve), called)


class MadeModel:
    """Stands for a head's Keras model."""

    def __init__(self, *_: Any) -> None:
        self.weights: list[np.ndarray] = []

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        self.weights = list(weights)

    def get_weights(self) -> list[np.ndarray]:
        return self.weights


class MadeHead(NamedTuple):
    """Stands for ``heads.files.head_file.Head``."""

    model: MadeModel
    metadata: Any


def save_head(path: Path, model: MadeModel, metadata: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(pickle.dumps(MadeHead(model, metadata)))


def read_head(path: Path) -> MadeHead:
    return pickle.loads(path.read_bytes())


def use_made_banks(patched: pytest.MonkeyPatch) -> None:
    """Lets searches train made heads, which are no Keras files, until ``patched`` is undone."""
    patched.setattr("heads.bank.engine.make_program", MadeProgram)
    patched.setattr("heads.bank.engine.predict_exactly", predict)
    patched.setattr("search.training.solo.train_solo", train)
    patched.setattr("search.training.pool.A_SMALLER_BANK", 0)  # it takes no time to make one
    patched.setattr("search.training.bank_figures.bank_rate", lambda *_: 1e12)
    alone = OneAtATimeEstimate(seconds=1.0, seconds_per_trial=0.1, seconds_per_epoch=0.1, sampled=(0,))
    patched.setattr("search.finish.conclusion.one_at_a_time", lambda *_: alone)
    patched.setattr("search.finish.checkpoints.build_head", MadeModel)
    patched.setattr("search.finish.checkpoints.save_head", save_head)
    for module in ("finish.export_choice", "record.kept_heads"):
        patched.setattr(f"search.{module}.read_metadata", lambda path: read_head(path).metadata)
    patched.setattr("gc.collect", lambda *_: 0)  # there is nothing large, and much of others
    for module in ("held_out", "checkpoints"):
        patched.setattr(f"search.finish.{module}.read_head", read_head)
    patched.setattr(
        "search.finish.held_out.predict_probabilities",
        lambda model, feed: shares(feed.rows[:, None], number_of(model.get_weights())[None], 4)[:, 0],
    )
