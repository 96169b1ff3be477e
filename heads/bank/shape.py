"""What a bank has room for, and which kinds of heads it can hold."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from heads.model.functions import pooled_positions
from heads.model.spec import PAGE, HeadSpec

STATISTICS = ("mean", "variance")
"""Those that are not trained."""


@dataclass(frozen=True, kw_only=True)
class BankShape:
    """What a bank has room for and which kinds of heads it can hold: all that its compiled program depends on.

    Attributes:
        pages: Pages of 16 channels in each fold's partition.
        slots: Heads in each fold's partition, at most ``pages``.
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
    """

    pages: int
    slots: int
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

        Raises:
            ValueError: The widest head does not fit.
        """
        widest = max(pages_of(spec) for spec in specs)
        if widest > pages:
            raise ValueError(f"pages: expected at least {widest} for the widest head, found {pages}")
        hidden = [spec for spec in specs if spec.dense_layers]
        return cls(
            pages=pages,
            slots=pages // min(pages_of(spec) for spec in specs),
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
        )

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
        )
        for name, found, expected, holds in rules:
            if not holds:
                raise ValueError(f"{name}: this bank was made for {expected}, found {found}")

    @property
    def positions(self) -> int:
        """Places of a feature map: height times width."""
        return self.feature_shape[0] * self.feature_shape[1]

    @property
    def dense_positions(self) -> int:
        """Positions that reach the first dense layer: one where every head pools."""
        return max(pooled_positions(name, self.positions) for name in self.poolings)

    @property
    def page_arrays(self) -> dict[str, tuple[int, ...]]:
        """Shape of one page of each array that is laid out in pages."""
        vectors = ("beta", *STATISTICS) if True in self.batch_norm else ()
        return {
            "kernel": (PAGE, self.feature_shape[2]),
            **dict.fromkeys(vectors, (PAGE,)),
            "dense": (PAGE, self.dense_positions, self.units),
        }

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
    def trained(self) -> tuple[str, ...]:
        """Names of the arrays that Adam updates."""
        return tuple(name for name in (*self.page_arrays, *self.slot_arrays) if name not in STATISTICS)

    @property
    def state_parts(self) -> dict[str, tuple[str, ...]]:
        """Names of the arrays in each part of a bank's state: moments only of what is trained."""
        every = (*self.page_arrays, *self.slot_arrays)
        return {"weights": every, "first": self.trained, "second": self.trained, "best": every}

    @property
    def step_flops(self) -> int:
        """Floating-point operations of the matrix products of one training step, all pages in use.

        The first layer forward and its weights' gradient (features have none), the dense layers forward and both
        gradients. With folds, the partition that sits a batch out is not computed.
        """
        partitions = max(1, self.folds - 1)
        pages, slots = partitions * self.pages, partitions * self.slots
        height, width, channels = self.feature_shape
        first = 2 * pages * PAGE * height * width * channels
        dense = 3 * pages * PAGE * self.dense_positions * self.units
        rest = (
            3
            * slots
            * self.units
            * (max(0, self.dense_layers - 1) * self.units + (self.dense_layers > 0) * self.classes)
        )
        return 2 * self.batch * (first + dense + rest)


def pages_of(spec: HeadSpec) -> int:
    """Returns the pages that a head needs."""
    return spec.conv_width // PAGE
