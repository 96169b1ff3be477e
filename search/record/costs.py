"""What it costs to use the heads of a study: milliseconds of an image, measured on one machine. In summary.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.record.recorded import Recorded


@dataclass(frozen=True, kw_only=True)
class StoreCost(Recorded):
    """A store that trials were trained on, and what its features cost.

    Attributes:
        name: Of the store; '' in a study of one.
        fingerprint: Of the store.
        backbone: In words, with what is not its usual: width multiplier, layer. ``unknown`` where it is.
        image_size: Side in pixels of the square that it is shown; 0 where that is unknown.
        feature_shape: (height, width, channels) of the features that a head takes which has left the study.
        views: Of each image, over which predictions are averaged.
        milliseconds: Of the backbone for an image in all views; None where it is not known, or of use to nobody.
    """

    name: str
    fingerprint: str
    backbone: str
    image_size: int
    feature_shape: tuple[int, int, int]
    views: int
    milliseconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class CostOfUse(Recorded):
    """What an image costs, by store and head.

    Attributes:
        stores: Those of the study, in their order.
        heads: Milliseconds of an image through the head of a completed trial, all views, by the trial's number; of a
            few it was measured and of the others reckoned by their size. None where it is not known.
    """

    stores: tuple[StoreCost, ...]
    heads: dict[str, float | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON types."""
        return super().to_dict() | {"heads": dict(self.heads)}

    def of_store(self, name: str) -> StoreCost | None:
        """Returns what is told of a store; None where nothing is."""
        return next((store for store in self.stores if store.name == name), None)

    def backbone(self, store: str) -> float | None:
        """Returns the milliseconds of an image through a store's backbone; None where they are not known."""
        told = self.of_store(store)
        return told.milliseconds if told else None

    def head(self, trial: int) -> float | None:
        """Returns the milliseconds of an image through a trial's head; None where they are not known."""
        return self.heads.get(f"{trial}")

    def of(self, trial: int, store: str) -> float | None:
        """Returns the milliseconds of an image through a store's backbone and a trial's head; None where not known."""
        parts = (self.backbone(store), self.head(trial))
        return None if None in parts else sum(part for part in parts if part is not None)

    def holds_of(self, stores: Mapping[str, str], trials: Iterable[int]) -> bool:
        """Whether it was measured of these stores, fingerprints by name, and of all these trials' heads."""
        same = {store.name: store.fingerprint for store in self.stores} == dict(stores)
        return same and all(f"{trial}" in self.heads for trial in trials)
