"""What a bank has room for, and which kinds of heads it can hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from heads.model.functions import POOLINGS
from heads.model.spec import PAGE, HeadSpec
from heads.model.weights import multiplications

STATISTICS = ("mean", "variance")
"""Those that are not trained."""
TILE = 32
"""Units of a tile, at most: what a page of a head that flattens has of the first dense layer comes in tiles."""

Sort = Literal["pages", "tiles", "slots"]
"""What an array has places for."""
StatePart = Literal["weights", "first", "second", "best"]
"""What a bank keeps of its heads: see ``heads.bank.state.State``, which has counters, too."""
Where = dict[Sort, npt.NDArray[np.int64]]
"""Places of a head in its fold's partition, see ``PageTable.places_of``."""


class Room(NamedTuple):
    """What heads take of each fold's partition, or what there is of it.

    Attributes:
        pages: Pages of 16 channels.
        slots: Heads.
        tiles: Tiles of first dense layers.
    """

    pages: int
    slots: int
    tiles: int

    def holds(self, needed: Room) -> bool:
        """Whether there is as much as is needed of everything."""
        return all(one <= other for one, other in zip(needed, self, strict=True))

    def minus(self, taken: Room) -> Room:
        """Returns what is left."""
        return Room(*(one - other for one, other in zip(self, taken, strict=True)))


@dataclass(frozen=True, kw_only=True)
class BankShape:
    """What a bank has room for and which kinds of heads it can hold: all that its compiled program depends on.

    Attributes:
        pages: Pages of 16 channels in each fold's partition.
        slots: Heads in each fold's partition, at most ``pages``.
        tiles: Tiles of the first dense layers of heads that flatten, in each fold's partition.
        folds: Partitions: a trial has one head in each.
        feature_shape: (height, width, channels) of one bottleneck.
        classes: Number of classes.
        batch: Rows in a batch.
        units: Widest dense layer, softmax included.
        dense_layers: Most hidden layers, 0 to 2.
        activations: Those that occur.
        poolings: Those that occur.
        batch_norm: Which of true and false occur.
        dropout: Whether a convolution's outputs are ever dropped.
        dense_dropout: Whether a hidden layer's outputs are ever dropped.
        sgd: Which of true and false occur: whether a head is moved by SGD, or by Adam.
        lanes: Parts of a partition's pages whose passes run beside each other, see ``lane_of``.
    """

    pages: int
    slots: int
    tiles: int
    folds: int = 1
    feature_shape: tuple[int, int, int]
    classes: int
    batch: int
    units: int
    dense_layers: int
    activations: tuple[str, ...]
    poolings: tuple[str, ...]
    batch_norm: tuple[bool, ...]
    dropout: bool
    dense_dropout: bool
    sgd: tuple[bool, ...] = (False,)
    lanes: int = 1

    @classmethod
    def covering(
        cls,
        specs: Collection[HeadSpec],
        *,
        pages: int,
        feature_shape: tuple[int, int, int],
        classes: int,
        batch: int,
        folds: int = 1,
        slots: int | None = None,
        tiles: int | None = None,
        lanes: int = 1,
    ) -> BankShape:
        """Returns the least shape that holds heads like those given, and so compiles nothing that none of them uses.

        Args:
            specs: For a study: heads that between them take every choice and every upper bound of its space, and
                its least width (which decides how many heads there can be at once).
            pages: Pages in each fold's partition; at least those of the widest head.
            feature_shape: (height, width, channels) of one bottleneck.
            classes: Number of classes.
            batch: Rows in a batch.
            folds: Partitions.
            slots: By default for as many heads of any of these kinds as the pages hold.
            tiles: No more than those can have; by default as many.
            lanes: See ``heads.bank.backends.default_lanes``.

        Raises:
            ValueError: The widest head does not fit.
        """
        widest = max(pages_of(spec) for spec in specs)
        if widest > pages:
            raise ValueError(f"pages: expected at least {widest} for the widest head, found {pages}")
        hidden = [spec for spec in specs if spec.dense_layers]
        shape = cls(
            pages=pages,
            slots=pages // min(pages_of(spec) for spec in specs) if slots is None else slots,
            tiles=0,
            folds=folds,
            feature_shape=feature_shape,
            classes=classes,
            batch=batch,
            units=max([classes, *(spec.dense_units for spec in hidden)]),
            dense_layers=max(spec.dense_layers for spec in specs),
            activations=tuple(sorted({spec.activation for spec in specs})),
            poolings=tuple(sorted({spec.pooling for spec in specs})),
            batch_norm=tuple(sorted({spec.batch_norm for spec in specs})),
            dropout=any(spec.dropout for spec in specs),
            dense_dropout=any(spec.dense_dropout for spec in hidden),
            sgd=tuple(sorted({spec.is_sgd for spec in specs})),
            lanes=lanes,
        )
        return replace(shape, tiles=shape.most_tiles if tiles is None else min(tiles, shape.most_tiles))

    def just_for(self, specs: Collection[HeadSpec]) -> BankShape:
        """Returns the shape of a bank for just these heads and their kinds, with this one's rows, folds and lanes."""
        needed = self.needed_by(specs)
        return BankShape.covering(
            specs,
            pages=needed.pages,
            slots=needed.slots,
            tiles=needed.tiles,
            feature_shape=self.feature_shape,
            classes=self.classes,
            batch=self.batch,
            folds=self.folds,
            lanes=self.lanes,
        )

    @property
    def room(self) -> Room:
        """What an empty bank has."""
        return Room(self.pages, self.slots, self.tiles)

    def needed_by(self, specs: Iterable[HeadSpec]) -> Room:
        """Returns what these heads take at once."""
        heads = list(specs)
        return Room(sum(map(pages_of, heads)), len(heads), sum(map(self.tiles_of, heads)))

    def require(self, spec: HeadSpec) -> None:
        """Raises ValueError, naming the field, where a bank of this shape cannot hold the head."""
        units = spec.dense_units if spec.dense_layers else 0
        rules = (
            ("conv_width", spec.conv_width, f"at most {self.pages * PAGE}", pages_of(spec) <= self.pages),
            ("activation", spec.activation, f"one of {self.activations}", spec.activation in self.activations),
            ("pooling", spec.pooling, f"one of {self.poolings}", spec.pooling in self.poolings),
            ("batch_norm", spec.batch_norm, f"one of {self.batch_norm}", spec.batch_norm in self.batch_norm),
            ("dense_layers", spec.dense_layers, f"at most {self.dense_layers}", spec.dense_layers <= self.dense_layers),
            ("dense_units", units, f"at most {self.units}", units <= self.units),
            ("dropout", spec.dropout, "0", self.dropout or not spec.dropout),
            ("dense_dropout", spec.dense_dropout, "0", self.dense_dropout or not units or not spec.dense_dropout),
            ("optimizer", spec.optimizer, "another", spec.is_sgd in self.sgd),
            ("tiles", self.tiles_of(spec), f"at most {self.tiles}", self.tiles_of(spec) <= self.tiles),
        )
        for name, found, expected, holds in rules:
            if not holds:
                raise ValueError(f"{name}: this bank was made for {expected}, found {found}")

    @property
    def positions(self) -> int:
        """Places of a feature map: height times width."""
        return self.feature_shape[0] * self.feature_shape[1]

    @property
    def lane_pages(self) -> int:
        """Pages that a lane's arrays hold, the same in all lanes, so that one compiled program serves them."""
        return -(-self.pages // self.lanes)

    @property
    def lane_starts(self) -> tuple[int, ...]:
        """The page that each lane's arrays begin with; where lanes cannot be equal, the last begin in others' pages."""
        size = self.lane_pages
        return tuple(min(lane * size, self.pages - size) for lane in range(self.lanes))

    def lane_of(self, pages: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Returns the lane of each page, which is the only one that computes it."""
        return pages // self.lane_pages

    @property
    def flattens(self) -> bool:
        """Whether any head's positions reach its dense layers."""
        return any(POOLINGS[name].keeps_positions for name in self.poolings)

    @property
    def pools(self) -> bool:
        """Whether any head pools its positions."""
        return any(not POOLINGS[name].keeps_positions for name in self.poolings)

    @property
    def pooled_values(self) -> int:
        """Values of each channel that heads leave which pool: those of the pooling that leaves most."""
        return max([entry.values for name in self.poolings if not (entry := POOLINGS[name]).keeps_positions], default=0)

    @property
    def tile_units(self) -> int:
        """Units of a tile."""
        return min(TILE, self.units)

    @property
    def tiles_in_page(self) -> int:
        """Tiles of a page of the head with the widest first dense layer."""
        return -(-self.units // self.tile_units) if self.flattens else 0

    @property
    def most_tiles(self) -> int:
        """Tiles with which no head ever waits for one."""
        return self.pages * self.tiles_in_page

    def tiles_of(self, spec: HeadSpec) -> int:
        """Returns the tiles that a head needs: for each of its pages so many that its first dense layer fits."""
        if not POOLINGS[spec.pooling].keeps_positions:
            return 0
        return pages_of(spec) * -(-first_units(spec, self.classes) // self.tile_units)

    @property
    def page_arrays(self) -> dict[str, tuple[int, ...]]:
        """Shape of one page of each array that is laid out in pages."""
        vectors = ("beta", *STATISTICS) if True in self.batch_norm else ()
        pooled = {"pooled": (PAGE * self.pooled_values, self.units)} if self.pools else {}
        return {"kernel": (PAGE, self.feature_shape[2]), **dict.fromkeys(vectors, (PAGE,)), **pooled}

    @property
    def tile_arrays(self) -> dict[str, tuple[int, ...]]:
        """Shape of one tile of each array that is laid out in tiles."""
        return {"tiles": (PAGE, self.positions, self.tile_units)} if self.flattens else {}

    @property
    def slot_arrays(self) -> dict[str, tuple[int, ...]]:
        """Shape of one head of each array that has a place per head."""
        units, classes = self.units, self.classes
        shapes: dict[str, tuple[int, ...]] = {"dense_bias": (units,)}
        if self.dense_layers > 1:
            shapes |= {"hidden": (units, units), "hidden_bias": (units,)}
        if self.dense_layers:
            shapes |= {"out": (units, classes), "out_bias": (classes,)}
        return shapes

    @property
    def arrays(self) -> dict[Sort, dict[str, tuple[int, ...]]]:
        """Shape of one place of each array, by what it has places for."""
        return {"pages": self.page_arrays, "tiles": self.tile_arrays, "slots": self.slot_arrays}

    @property
    def places(self) -> dict[Sort, int]:
        """How many places there are of each sort, in each fold's partition."""
        return {"pages": self.pages, "tiles": self.tiles, "slots": self.slots}

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the arrays that the optimizer updates."""
        return tuple(name for name in self._names if name not in STATISTICS)

    @property
    def state_parts(self) -> dict[StatePart, tuple[str, ...]]:
        """Names of the arrays in each part of a bank's state: moments only of what is trained."""
        every = self._names
        return {"weights": every, "first": self.trained, "second": self.trained, "best": every}

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for arrays in self.arrays.values() for name in arrays)

    @property
    def training_partitions(self) -> int:
        """How many partitions train on a batch: with folds, one of them sits it out."""
        return max(1, self.folds - 1)

    def step_flops(self, specs: Iterable[HeadSpec]) -> int:
        """Floating-point operations of the matrix products of one training step that these heads need.

        The first layer forward and its weights' gradient (features have none), the dense layers forward and both
        gradients. With folds, the partition that sits a batch out is not computed. Padding is not counted.
        """
        return 2 * self.batch * self.training_partitions * sum(map(self._step_products, specs))

    def _step_products(self, spec: HeadSpec) -> int:
        first, dense = multiplications(spec, self.feature_shape, self.classes)
        return 2 * first + 3 * dense


def pages_of(spec: HeadSpec) -> int:
    """Returns the pages that a head needs."""
    return spec.conv_width // PAGE


def first_units(spec: HeadSpec, classes: int) -> int:
    """Returns the units of the dense layer that follows the pooling: the first hidden one, or the classes."""
    return spec.dense_units if spec.dense_layers else classes
