"""Which backbone, with which weights, shown what: checked before seconds are spent on building it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from features.runtime.errors import InputError
from features.store.kind import UNKNOWN, FeatureKind

PREPROCESSINGS = ("backbone", "unit")
IMAGENET = "imagenet"
_LARGEST_SIZE = 4096
_RANDOM = re.compile(r"random(?::(?P<seed>\d{1,9}))?")


@dataclass(frozen=True)
class Architecture:
    """One network of keras.applications.

    Attributes:
        factory: Its function in ``keras.applications``.
        image_size: Side in pixels that its ImageNet weights were trained with.
        smallest: The least side that it accepts.
        mode: Its ``preprocess_input``: ``tf`` (-1 to 1), ``torch`` (0 to 1, then standardised), ``caffe`` (BGR, means
            subtracted) or ``none`` (the network does it itself).
        alphas: Width multipliers that have ImageNet weights; none where the network has no multiplier.
    """

    factory: str
    image_size: int
    smallest: int
    mode: str
    alphas: tuple[float, ...] = ()


BACKBONES: Mapping[str, Architecture] = MappingProxyType(
    {
        "inception_v3": Architecture("InceptionV3", 299, 75, "tf"),
        "xception": Architecture("Xception", 299, 71, "tf"),
        "mobilenet": Architecture("MobileNet", 224, 32, "tf", (0.25, 0.5, 0.75, 1.0)),
        "mobilenet_v2": Architecture("MobileNetV2", 224, 32, "tf", (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
        "resnet50": Architecture("ResNet50", 224, 32, "caffe"),
        "resnet101": Architecture("ResNet101", 224, 32, "caffe"),
        "resnet50_v2": Architecture("ResNet50V2", 224, 32, "tf"),
        "densenet121": Architecture("DenseNet121", 224, 32, "torch"),
        "densenet169": Architecture("DenseNet169", 224, 32, "torch"),
        "vgg16": Architecture("VGG16", 224, 32, "caffe"),
        "vgg19": Architecture("VGG19", 224, 32, "caffe"),
        "efficientnet_b0": Architecture("EfficientNetB0", 224, 32, "none"),
        "efficientnet_b1": Architecture("EfficientNetB1", 240, 32, "none"),
        "efficientnet_b2": Architecture("EfficientNetB2", 260, 32, "none"),
        "efficientnet_b3": Architecture("EfficientNetB3", 300, 32, "none"),
    }
)
"""What ``--backbone`` accepts."""


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Which backbone, with which weights, shown what.

    Attributes:
        name: One of ``BACKBONES``.
        weights: ``imagenet`` (downloaded by Keras), ``random``, ``random:SEED``, or a file (.h5, .weights.h5).
        image_size: Side in pixels of the square that it is shown; its own size where None.
        alpha: Width multiplier, for a backbone that has one.
        preprocessing: ``backbone`` for what keras.applications defines, ``unit`` for x / 255.
    """

    name: str = "inception_v3"
    weights: str = IMAGENET
    image_size: int | None = None
    alpha: float | None = None
    preprocessing: str = "backbone"

    def __post_init__(self) -> None:
        if self.name not in BACKBONES:
            raise InputError("--backbone", expected=f"one of {', '.join(BACKBONES)}", found=self.name)
        self._check_alpha()
        smallest = self.architecture.smallest
        if not smallest <= self.size <= _LARGEST_SIZE:
            expected = f"{smallest} to {_LARGEST_SIZE} pixels for {self.name}"
            raise InputError("--image-size", expected=expected, found=self.size)
        if self.preprocessing not in PREPROCESSINGS:
            raise InputError("--preprocessing", expected=" or ".join(PREPROCESSINGS), found=self.preprocessing)
        if self.preprocessing == "unit" and self.architecture.mode == "none":
            hint = "it would see almost the same for every image"
            raise InputError(
                "--preprocessing", expected=f"backbone: {self.name} rescales its input itself", found="unit", hint=hint
            )
        if self.seed is None and self.weights != IMAGENET and not Path(self.weights).is_file():
            expected = "imagenet, random, random:SEED or a file (.h5, .weights.h5)"
            raise InputError("--weights", expected=expected, found=f"{self.weights!r}, no such file")

    def _check_alpha(self) -> None:
        alphas = self.architecture.alphas
        if self.alpha is None:
            return
        if not alphas:
            having = ", ".join(name for name, architecture in BACKBONES.items() if architecture.alphas)
            raise InputError("--alpha", expected=f"a backbone with a width multiplier ({having})", found=self.name)
        if self.weights == IMAGENET and self.alpha not in alphas:
            shown = ", ".join(f"{alpha:g}" for alpha in alphas)
            raise InputError("--alpha", expected=f"one of {shown} for {self.name}'s imagenet weights", found=self.alpha)
        if not 0 < self.alpha <= 4:
            raise InputError("--alpha", expected="a number above 0, at most 4", found=self.alpha)

    @property
    def architecture(self) -> Architecture:
        """The entry of ``BACKBONES``."""
        return BACKBONES[self.name]

    @property
    def size(self) -> int:
        """Side in pixels of the square that the backbone is shown."""
        return self.architecture.image_size if self.image_size is None else self.image_size

    @property
    def seed(self) -> int | None:
        """Seed of random weights; None where the weights are others."""
        match = _RANDOM.fullmatch(self.weights)
        return int(match["seed"] or 0) if match else None

    @property
    def weights_name(self) -> str:
        """``imagenet``, ``random:SEED`` or the file's name."""
        return Path(self.weights).name if self.seed is None else f"random:{self.seed}"

    def kind(self, feature_shape: tuple[int, int, int], weights_sha256: str) -> FeatureKind:
        """Returns the kind of features that the backbone makes, once it is built and its weights are there."""
        return FeatureKind(
            feature_shape=feature_shape,
            backbone=self.name,
            alpha=self.alpha,
            weights=self.weights_name,
            weights_sha256=weights_sha256,
            image_size=self.size,
            preprocessing=self.preprocessing,
        )


def recorded_options(kind: FeatureKind) -> dict[str, Any]:
    """Returns the fields of the ``BackboneSpec`` that makes such features, None where they are not known.

    Weights that came from a file are recorded by the file's name alone.
    """
    told = {"name" if field == "backbone" else field: value for field, value in kind.origin.items()}
    return {
        field.name: None if told[field.name] in (UNKNOWN, 0) else told[field.name] for field in fields(BackboneSpec)
    }
