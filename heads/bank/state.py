"""What the mathematics of a bank takes and gives: explicit arrays, by name.

Letters in shapes: F folds, P pages, T tiles and H slots of a partition, C channels of a bottleneck, S positions, B rows
of a batch, Q values of a channel that heads leave which pool, U units, V units of a tile, R tiles of a page at most, K
classes, L lanes of M pages; N = M·16 channels of a lane. Channels lead, and the values of a channel lie position by
position: (N, S·B). The mathematics knows one partition, whose arrays have no axis F.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from heads.bank.shape import BankShape
from heads.model.functions import Tensor

Arrays = dict[str, Tensor]
State = dict[str, Arrays]
"""``weights``, ``first`` and ``second`` (Adam's moments), ``best`` (weights kept), each by name, and ``counters``:
``steps`` (F, H) int32. Arrays in pages are (F, P, ...), those in tiles (F, T, ...), those of slots (F, H, ...),
float32: ``BankShape.arrays``. Padding and what is free hold zeros."""
Settings = Arrays
"""Numbers constant within an epoch. Of the layout (``PageTable.layout``), int32: ``owner``, ``page_in_head``,
``tile_count`` (P,), ``tiles_of_page`` (P, R), ``page_of_tile`` and ``part_of_tile`` (T,); ``used_pages`` (L, M), places
in each lane, ``used_pooled`` (P,), ``used_tiles`` (T,), lane by lane, and ``used_slots`` (H,), of which the first
``used_pages_count`` (L,) and so on are in use, and ``used_pages_ranks`` (L, M) and so on, each place's position among
them; ``tiles_in_lane`` (L,). Of the heads: (H,) each of ``hyperparameters``; (F, H) ``learning_rate`` float32 and
``seed`` int32, which are (H,) in those of one partition. Of the study: ``class_weight`` (K,) float32.
"""


class Used(NamedTuple):
    """Places in use: the first ``count`` of all ``places``; ``ranks`` is each place's position among these."""

    places: Tensor
    ranks: Tensor
    count: Tensor


class Lane(NamedTuple):
    """What the element-wise passes of a lane look at.

    Attributes:
        pages: (M,) each: ``activation``, ``pooling``, ``tile_count`` int32; ``tiles`` (M, R) int32, places in (T,).
        channels: (M, 16) each: ``dropout`` float32, ``key`` uint32, ``batch_norm`` bool.
        used: Pages of the lane that heads own, by their places in it.
        tiles: int32, how many tiles these have.
    """

    pages: Arrays
    channels: Arrays
    used: Used
    tiles: Tensor


class PartitionSettings(NamedTuple):
    """The settings of a partition, lined up for the passes (``heads.bank.partition_settings``).

    Attributes:
        slots: (H,) each: hyperparameters.
        pages: (P,) each: ``owner`` (the slot; of a free page, any) int32, ``owned`` and ``pooled`` (whether its head
            pools) bool.
        lanes: L of them.
        tiles: (T,) each: ``page`` and ``row`` (slot · R + part: where its sums belong) int32, ``owned`` bool. Empty
            where no head flattens.
        used_pooled: Pages of heads that pool.
        used_tiles: Tiles that heads own, those of the first lane's pages first.
        used_slots: Those that hold heads.
        class_weight: (K,) float32: what a row of each class counts in the loss.
    """

    slots: Arrays
    pages: Arrays
    lanes: tuple[Lane, ...]
    tiles: Arrays
    used_pooled: Used
    used_tiles: Used
    used_slots: Used
    class_weight: Tensor


class Batch(NamedTuple):
    """Rows to train on.

    Attributes:
        features: (S·B, C) in the products' dtype, position by position.
        labels: (B,) int32.
    """

    features: Tensor
    labels: Tensor


class Norm(NamedTuple):
    """Batch norm of channels: of a lane's or all pages, (M, 16) or (P, 16) float32 each, or of one page, (16,)."""

    beta: Tensor
    mean: Tensor
    variance: Tensor


class Active(NamedTuple):
    """What the first layer hands to the dense layers, in the products' dtype.

    Attributes:
        flat: (M, 16·S, B) activations of a lane's pages that have tiles; None where no head flattens.
        pooled: (M, 16·Q, B), zeros for what a head does not leave; None where every head flattens.
    """

    flat: Tensor | None
    pooled: Tensor | None


class Gradients(NamedTuple):
    """What one batch yields for a partition.

    Attributes:
        loss: (H,) float32.
        weights: Gradient of each trained array, (P, ...), (T, ...) or (H, ...), in the products' dtype or
            float32.
        statistics: ``mean`` and ``variance`` of the batch, (P, 16) float32; empty without batch norm.
    """

    loss: Tensor
    weights: Arrays
    statistics: Arrays


def zero_partition(shape: BankShape, zeros: Callable[[tuple[int, ...], str], Tensor]) -> State:
    """Returns one partition of an empty bank's state; ``zeros`` makes an array of a shape and dtype."""
    sizes = {
        name: (shape.places[sort], *size) for sort, arrays in shape.arrays.items() for name, size in arrays.items()
    }
    state: State = {
        part: {name: zeros(sizes[name], "float32") for name in names} for part, names in shape.state_parts.items()
    }
    state["counters"] = {"steps": zeros((shape.slots,), "int32")}
    return state


def zero_state(shape: BankShape, zeros: Callable[[tuple[int, ...], str], Tensor]) -> State:
    """Returns the state of an empty bank, all partitions in one array each."""
    return zero_partition(shape, lambda size, kind: zeros((shape.folds, *size), kind))
