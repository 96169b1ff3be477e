"""What the mathematics of a bank takes and gives: explicit arrays, by name.

Letters in shapes: F folds, P pages and H slots of a partition, C channels of a bottleneck, S positions, B rows of a
batch, U units, K classes; G partitions computed at once (all but the one that sits out), N = G·P·16 channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from heads.bank.functions import Tensor
from heads.bank.shape import BankShape

Arrays = dict[str, Tensor]
State = dict[str, Arrays]
"""``weights``, ``first`` and ``second`` (Adam's moments), ``best`` (weights kept), each by name, and ``counters``:
``steps`` (F, H) int32. Arrays in pages are (F, P, ...), those of slots (F, H, ...), float32: ``BankShape.page_arrays``
and ``slot_arrays``. Padding, free pages and free slots hold zeros."""
Settings = Arrays
"""Numbers constant within an epoch. Of the heads: ``owner`` and ``page_in_head`` (P,) int32; (H,) each of
``hyperparameters``; (F, H) ``learning_rate`` float32 and ``seed`` int32. Of the study: ``class_weight`` (K,) float32.
"""


class Present(NamedTuple):
    """The partitions that are computed, as one bank of G·P pages and G·H slots.

    Attributes:
        owner: (G·P,) int32 slot of each page; of a free page, any.
        owned: (G·P,) bool.
        slots: (G·H,) each: hyperparameters.
        channels: (N,) each: ``activation`` and ``pooling`` int32, ``batch_norm`` bool, ``dropout`` float32, ``key``
            uint32.
        class_weight: (K,) float32: what a row of each class counts in the loss.
    """

    owner: Tensor
    owned: Tensor
    slots: Arrays
    channels: Arrays
    class_weight: Tensor


class Batch(NamedTuple):
    """Rows to train on.

    Attributes:
        features: (B·S, C) in the products' dtype.
        labels: (B,) int32.
        fold: int32 scalar: the fold that the rows are drawn from; without meaning where there is one.
    """

    features: Tensor
    labels: Tensor
    fold: Tensor


class Norm(NamedTuple):
    """Batch norm of the channels computed, (N,) float32 each."""

    beta: Tensor
    mean: Tensor
    variance: Tensor


class Gradients(NamedTuple):
    """What one batch yields for the partitions computed.

    Attributes:
        loss: (G·H,) float32.
        weights: Gradient of each trained array, (G·P, ...) or (G·H, ...), in the products' dtype or float32.
        statistics: ``mean`` and ``variance`` of the batch, (G·P, 16) float32; empty without batch norm.
    """

    loss: Tensor
    weights: Arrays
    statistics: Arrays


def zero_state(shape: BankShape, zeros: Callable[[tuple[int, ...], str], Tensor]) -> State:
    """Returns the state of an empty bank; ``zeros`` makes an array of a shape and dtype."""
    places = {**dict.fromkeys(shape.page_arrays, shape.pages), **dict.fromkeys(shape.slot_arrays, shape.slots)}
    sizes = {**shape.page_arrays, **shape.slot_arrays}
    state: State = {
        part: {name: zeros((shape.folds, places[name], *sizes[name]), "float32") for name in names}
        for part, names in shape.state_parts.items()
    }
    state["counters"] = {"steps": zeros((shape.folds, shape.slots), "int32")}
    return state
