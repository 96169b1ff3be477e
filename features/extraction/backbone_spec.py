"""Which backbone, with which weights, shown what: checked before seconds are spent on building it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from features.extraction.applications import BACKBONES, Architecture
from features.extraction.network_file import NetworkFile, is_network_file, read_network
from features.runtime.errors import InputError
from features.runtime.files import why_no_file
from features.store.kind import UNKNOWN, FeatureKind

PREPROCESSINGS = ("backbone", "unit", "tf", "torch", "caffe", "none")
OWN = PREPROCESSINGS[0]
IMAGENET = "imagenet"
_LARGEST_SIZE = 4096
RANDOM = re.compile(r"random(?::(?P<seed>\d{1,9}))?")
"""Weights that are drawn."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Which backbone, with which weights, cut where, shown what.

    Attributes:
        name: One of ``BACKBONES``, or a Keras file that holds a whole network (.keras, .h5).
        layer: Whose output is wanted, as ``features.extraction.network.layers_of`` names it; '' for the network's own.
        weights: ``imagenet`` (downloaded by Keras), ``random``, ``random:SEED``, or a file (.h5, .weights.h5). A
            network from a file has its own.
        image_size: Side in pixels of the square that it is shown; its own size where None.
        alpha: Width multiplier, for a backbone that has one.
        preprocessing: ``backbone`` for what keras.applications defines, or what is in the file; ``unit`` for x / 255,
            ``tf`` for x / 127.5 - 1, ``torch`` and ``caffe`` as keras.applications has them; ``none`` for x as it is.
    """

    name: str = "inception_v3"
    layer: str = ""
    weights: str = IMAGENET
    image_size: int | None = None
    alpha: float | None = None
    preprocessing: str = OWN

    def __post_init__(self) -> None:
        if self.preprocessing not in PREPROCESSINGS:
            raise InputError(
                "--preprocessing", expected=f"one of {', '.join(PREPROCESSINGS)}", found=self.preprocessing
            )
        if self.name in BACKBONES:
            self._check_application()
        elif is_network_file(self.name):
            self._check_file(read_network(Path(self.name)))
        else:
            near = " or ".join(get_close_matches(self.name, BACKBONES))
            expected = f"one of {', '.join(BACKBONES)}, or a file (.keras, .h5)"
            raise InputError(
                "--backbone", expected=expected, found=self.name, hint=f"is {near} meant?" if near else None
            )

    def _check_application(self) -> None:
        self._check_alpha()
        self._check_size(self.architecture.smallest, self.name)
        if self.recorded_preprocessing != OWN and self.architecture.mode == "none":
            hint = "it would see almost the same for every image"
            expected = f"backbone: {self.name} rescales its input itself"
            raise InputError("--preprocessing", expected=expected, found=self.preprocessing, hint=hint)
        if self.seed is None and self.weights != IMAGENET and (why := why_no_file(Path(self.weights))):
            expected = "imagenet, random, random:SEED or a file (.h5, .weights.h5)"
            raise InputError("--weights", expected=expected, found=f"{self.weights!r}, {why}")

    def _check_file(self, file: NetworkFile) -> None:
        for option, told, usual in (("--weights", self.weights, IMAGENET), ("--alpha", self.alpha, None)):
            if told != usual:
                raise InputError(option, expected=f"none: {file.path} is a whole network", found=told)
        if file.size is None and self.image_size is None:
            expected = f"side in pixels of what {file.path} is shown: it takes images of any size"
            raise InputError("--image-size", expected=expected, found="none")
        if file.size is not None and self.image_size not in (None, file.size):
            expected = f"{file.size}, the only size that {file.path} takes"
            raise InputError("--image-size", expected=expected, found=self.image_size)
        self._check_size(1, file.path.name)
        if self.preprocessing == OWN and not file.rescales:
            expected = (
                f"what {file.path} was trained with: {', '.join(PREPROCESSINGS[1:])} (unit is x / 255, tf -1 to 1)"
            )
            found = "none told, and none that is known for one in the file"
            hint = "none, where it is in the file all the same"
            raise InputError("--preprocessing", expected=expected, found=found, hint=hint)

    def _check_size(self, smallest: int, of: str) -> None:
        if not smallest <= self.size <= _LARGEST_SIZE:
            expected = f"{smallest} to {_LARGEST_SIZE} pixels for {of}"
            raise InputError("--image-size", expected=expected, found=self.size)

    def _check_alpha(self) -> None:
        alphas = self.architecture.alphas
        if self.alpha is None:
            return
        if not alphas:
            having = ", ".join(BACKBONES.with_alpha())
            raise InputError("--alpha", expected=f"a backbone with a width multiplier ({having})", found=self.name)
        if self.weights == IMAGENET and self.alpha not in alphas:
            shown = ", ".join(f"{alpha:g}" for alpha in alphas)
            raise InputError("--alpha", expected=f"one of {shown} for {self.name}'s imagenet weights", found=self.alpha)
        if not 0 < self.alpha <= 4:
            raise InputError("--alpha", expected="a number above 0, at most 4", found=self.alpha)

    @cached_property
    def file(self) -> NetworkFile | None:
        """What the file says of its network; None for one of ``BACKBONES``."""
        return None if self.name in BACKBONES else read_network(Path(self.name))

    @property
    def architecture(self) -> Architecture:
        """The entry of ``BACKBONES``, for one that is no file."""
        return BACKBONES[self.name]

    @property
    def title(self) -> str:
        """The backbone's name, or that of its file, as it is recorded."""
        return self.name if self.file is None else self.file.path.name

    @property
    def identity(self) -> tuple[str, str]:
        """Which network, by name or by the hash of its file, and which layer of it."""
        return self.name if self.file is None else self.file.sha256, self.layer

    @property
    def size(self) -> int:
        """Side in pixels of the square that the backbone is shown."""
        own = self.architecture.image_size if self.file is None else self.file.size or 0
        return own if self.image_size is None else self.image_size

    @property
    def recorded_preprocessing(self) -> str:
        """The preprocessing by the one name that is recorded of several that mean the same."""
        if self.file is not None:
            return "none" if self.preprocessing == OWN else self.preprocessing
        return OWN if self.preprocessing == self.architecture.mode else self.preprocessing

    @property
    def seed(self) -> int | None:
        """Seed of random weights; None where the weights are others."""
        match = RANDOM.fullmatch(self.weights)
        return int(match["seed"] or 0) if match else None

    @property
    def weights_name(self) -> str:
        """``imagenet``, ``random:SEED`` or the file's name, that of the network where it has them."""
        if self.file is not None:
            return self.title
        return Path(self.weights).name if self.seed is None else f"random:{self.seed}"

    def kind(self, feature_shape: tuple[int, int, int], weights_sha256: str) -> FeatureKind:
        """Returns the kind of features that the backbone makes, once it is built and its weights are there."""
        return FeatureKind(
            feature_shape=feature_shape,
            backbone=self.title,
            layer=self.layer,
            backbone_sha256="" if self.file is None else self.file.sha256,
            alpha=self.alpha,
            weights=self.weights_name,
            weights_sha256=weights_sha256,
            image_size=self.size,
            preprocessing=self.recorded_preprocessing,
        )


def recorded_options(kind: FeatureKind) -> dict[str, Any]:
    """Returns the fields of the ``BackboneSpec`` that makes such features, None where they are not known.

    Weights and networks that came from a file are recorded by the file's name alone.
    """
    told = {"name" if field == "backbone" else field: value for field, value in kind.origin.items()}
    known = {name: None if value in (UNKNOWN, 0) else value for name, value in told.items()}
    return {field.name: known.get(field.name) for field in fields(BackboneSpec)}
