"""Who makes the features of an extraction: this process, where nothing else is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.filling import Work
from features.extraction.pipeline import Batch, FeatureMaker, Taker, Written, bottlenecks_of_each
from features.images.pages import source_of
from features.runtime.backend import BACKENDS, use_backend
from features.runtime.errors import InputError


class Built(Protocol):
    """What a store records of a backbone once that is built, and what there is to say of it."""

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one bottleneck."""
        ...

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights."""
        ...

    @property
    def remark(self) -> str:
        """What the user should know of it; '' for nothing."""
        ...


class Maker(Protocol):
    """Backbones that are built, here or elsewhere, and what makes features with them."""

    @property
    def built(self) -> Sequence[Built]:
        """One for each spec that it was built of."""
        ...

    def make(self, work: Work) -> Generator[Batch | Written]:
        """Yields what came of all batches, in whatever order."""
        ...


Build = Callable[[Sequence[BackboneSpec]], Maker]
"""Builds backbones, once the input is known to be sound."""


class BuiltHere(FeatureMaker, Protocol):
    """A backbone of this process."""

    weights_sha256: str
    remark: str


@dataclass(frozen=True)
class MakerHere:
    """Makes features in this process, in order.

    Attributes:
        built: The backbones.
    """

    built: Sequence[BuiltHere]

    def make(self, work: Work) -> Generator[Batch]:
        """Yields the features of all batches, as ``bottlenecks_of_each``."""
        several, header = len(work.stores) > 1, work.stores[0].writer.header
        return bottlenecks_of_each(
            [source_of(work.table.folder, path) for path in work.table.paths],
            [
                Taker(backbone, store.reading, str(store.store) if several else "")
                for backbone, store in zip(self.built, work.stores, strict=True)
            ],
            work.views,
            batches=work.batches,
            batch_size=header.batch_size,
            dtype=header.dtype,
        )


def check_backend(path: Path, begun: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuses to go on with a store on another backend: its features would be of two, which differ in their last bits.

    Args:
        path: The store.
        begun: Versions of the packages that it was begun with; of older and converted ones without a backend.
        here: Those of now.

    Raises:
        InputError: It was begun on another backend.
    """
    before, now = (next((name for name in BACKENDS if name in versions), None) for versions in (begun, here))
    if before is not None and before != now:
        raise InputError("--backend", expected=f"{before}, on which {path} was begun", found=now)


def versions_here() -> dict[str, str]:
    """Versions, by package, of what decides the bytes of a store."""
    return {package: version(package) for package in ("h5py", "keras", "numpy", "pillow", use_backend())}
