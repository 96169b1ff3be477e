"""A bank's partitions, one for each fold: which train on a batch, and how one is taken out of the state and put back.

The mathematics knows one partition. A batch of one fold goes through those of the others, and the one that sits the
batch out is not touched. They come one after the other, or a few at once: what some of them need fits memory that the
next ones use again.
"""

from __future__ import annotations

from typing import TypeVar

from keras import ops, tree

from heads.bank.functions import in_own_kernel
from heads.bank.state import Settings
from heads.model.functions import Tensor

T = TypeVar("T")
PARTITIONS_AT_ONCE = 2
"""Partitions that a CPU takes through a batch at once, at most. Steps of one have pieces that run on one core; four at
once were no faster than two, on two cores (docs/benchmarks.md)."""
_OF_PARTITIONS = ("learning_rate", "seed")
"""Settings that each partition has of its own."""


def partition_of(number: Tensor, fold: Tensor, folds: int) -> Tensor:
    """Returns which partition is the ``number``-th of those that train on a batch of ``fold``; int32 scalars."""
    return number if folds == 1 else ops.mod(fold + 1 + number, folds)


def one_of(arrays: T, partition: Tensor) -> T:
    """Takes one partition out of arrays (F, ...), nested in any way: (...) each."""

    def take(array: Tensor) -> Tensor:
        if array.shape[0] == 1:
            return ops.reshape(array, array.shape[1:])  # which copies nothing
        return ops.take(array, partition, axis=0)

    taken: T = tree.map_structure(take, arrays)
    return taken


def put_back(arrays: T, new: T, partition: Tensor) -> T:
    """Returns arrays (F, ...) with another content of one partition; nested alike."""

    def put(array: Tensor, values: Tensor) -> Tensor:
        if array.shape[0] == 1:
            return values[None]
        values = in_own_kernel(lambda values: values[None], partition, values)
        return ops.slice_update(array, (partition, *[0] * len(values.shape[1:])), values)

    placed: T = tree.map_structure(put, arrays, new)
    return placed


def partition_slice(settings: Settings, partition: Tensor) -> Settings:
    """Returns the settings of one partition."""
    return settings | {name: one_of(settings[name], partition) for name in _OF_PARTITIONS}
