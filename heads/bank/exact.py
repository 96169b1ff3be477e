"""What the recorded score of a finished head is taken of: float32, on the features as stored.

While a study runs, epochs are scored in the bank's own dtype. A finished head's score must be what plain Keras gives
for the file exported from it, so the heads that finish in an epoch are packed into a bank of their own and sent through
the same forward pass in float32: the one that scores epochs, where that is float32, else one that is not compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from features.rows.feed import Feed
from features.store.schema import Rows
from heads.bank.backends import compiles_by_shape, exact_forward
from heads.bank.packing import named, pack
from heads.bank.pages import PageTable
from heads.bank.program import ExactForward
from heads.bank.settings import bank_settings
from heads.bank.shape import BankShape
from heads.bank.state import Arrays, Settings, zero_partition
from heads.metrics.scoring import Probabilities, mean_probabilities
from heads.model.functions import Tensor
from heads.model.spec import PAGE, HeadSpec
from heads.model.weights import Weights

MOST_ROWS = 128
"""Of a batch of the bank made for finished heads: in small ones calling the operations takes longer than they do."""
MOST_BYTES = 2**25
"""Of the first layers' results of such a batch, where it has a few rows at least. Nothing is compiled there, so some
six arrays of this size are in memory at once, which no bank is planned with. A number, not what happens to be free:
scores do not depend on that to the last bit."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A head taken out of the bank.

    Attributes:
        spec: The head.
        weights: In the order of ``model.get_weights()``.
        fold: Whose validation rows it is scored on.
    """

    spec: HeadSpec
    weights: Weights
    fold: int = 0


class PlacedHeads(NamedTuple):
    """Heads laid out in a partition, as ``Bank.probabilities`` takes them; all as tensors.

    Attributes:
        weights: Of the partition.
        steps: Its heads' counters.
        settings: Of the partition.
    """

    weights: Arrays
    steps: Tensor
    settings: Settings


def predict_exactly(
    heads: Sequence[Finished], feed: Feed, rows: Rows, shape: BankShape, compiled: ExactForward | None = None
) -> list[Probabilities]:
    """Predicts the same rows with several heads, averaged over the views.

    Args:
        heads: At least one, of any kinds; their folds do not matter here.
        feed: Where the features come from.
        rows: Row indices in the feed's store.
        shape: Of the bank that they were in.
        compiled: The forward pass of that bank, where it is exact; without it one is made for these heads.

    Returns:
        (rows, classes) of each head.
    """
    if compiled is not None and compiled.shape.room.holds(compiled.shape.needed_by(head.spec for head in heads)):
        small, forward = compiled
    else:
        small = _small_shape(heads, shape)
        small = replace(small, batch=_batch(len(rows) * feed.views, small))
        forward = exact_forward(small)
    placed = _small_bank(small, heads)
    # All views in one line, so that only the last batch is filled up. They are averaged as they come: what is in memory
    # is what is returned, and the row or so whose other views are in the next batch.
    every, views = np.repeat(rows, feed.views), np.tile(np.arange(feed.views), len(rows))
    found = [np.empty((len(rows), shape.classes), np.float32) for _ in heads]
    done, begun = 0, np.empty((len(heads), 0, shape.classes), np.float32)
    for start in range(0, len(every), small.batch):
        part = slice(start, start + small.batch)
        features = feed.take(every[part], views[part])
        new = _predict(forward, placed, features, small)[: len(heads), : len(features)]
        predicted = np.concatenate([begun, new], axis=1)
        whole = predicted.shape[1] // feed.views
        of_rows, begun = np.split(predicted, [whole * feed.views], axis=1)
        averages = mean_probabilities([of_rows[:, view :: feed.views] for view in range(feed.views)])
        for mine, average in zip(found, averages, strict=True):
            mine[done : done + whole] = average
        done += whole
    return found


def _batch(rows: int, shape: BankShape) -> int:
    """Rows of equal batches; a multiple of 8, so that folds of nearly as many rows take the same."""
    of_row = 4 * shape.pages * PAGE * shape.positions
    most = max(8, min(MOST_ROWS, MOST_BYTES // of_row // 8 * 8))
    batches = max(1, -(-rows // most))
    return max(8, -(-rows // batches // 8) * 8)


def _small_shape(heads: Sequence[Finished], shape: BankShape) -> BankShape:
    specs = [head.spec for head in heads]
    if compiles_by_shape():  # so of few shapes
        pages, slots, tiles = map(_power, shape.needed_by(specs))
        return replace(shape, folds=1, pages=pages, slots=slots, tiles=tiles)
    return replace(shape, folds=1, lanes=1).just_for(specs)


def _power(number: int) -> int:
    """The power of two that is not below it; 0 of 0."""
    return 1 << (number - 1).bit_length() if number else 0


def _small_bank(shape: BankShape, heads: Sequence[Finished]) -> PlacedHeads:
    """Lays heads out in a partition."""
    table, state = PageTable(shape), zero_partition(shape, np.zeros)
    specs: list[HeadSpec | None] = [None] * shape.slots
    for head in heads:
        slot = table.place(head.spec)
        specs[slot] = head.spec
        where = table.places_of(slot)
        for sort, arrays in pack(shape, head.spec, named(head.spec, head.weights)).items():
            for name, values in arrays.items():
                state["weights"][name][where[sort]] = values
    steps = state["counters"]["steps"]
    settings = bank_settings(
        shape,
        table,
        specs,
        rates=np.zeros_like(steps, np.float32),
        seeds=np.zeros_like(steps),
        class_weights=np.ones(shape.classes, np.float32),
    )
    convert = keras.ops.convert_to_tensor
    weights = {name: convert(values) for name, values in state["weights"].items()}
    return PlacedHeads(weights, convert(steps), {name: convert(values) for name, values in settings.items()})


def _predict(
    forward: Callable[..., Any], placed: PlacedHeads, features: npt.NDArray[Any], shape: BankShape
) -> Probabilities:
    """Predicts up to a batch of rows; returns (slots, batch, classes)."""
    padded = np.zeros((shape.batch, *shape.feature_shape), np.float32)
    padded[: len(features)] = features
    by_position = np.moveaxis(padded.reshape(shape.batch, shape.positions, -1), 1, 0)
    rows = keras.ops.convert_to_tensor(np.ascontiguousarray(by_position).reshape(-1, shape.feature_shape[2]))
    return np.asarray(keras.ops.convert_to_numpy(forward(*placed, rows)), np.float32)
