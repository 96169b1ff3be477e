"""Which features these are: of which backbone, with which weights, shown what. Stated once, compared in one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

UNKNOWN = "unknown"
EIGHT_BITS = "8 bits"
"""An intensity: of a data set in which no image has more than 8 bits, so that none was scaled."""
LATER = ("layer", "backbone_sha256")
"""Fields that files have only where there is something to say: they came later."""
BY_TYPE = "type"
"""An intensity: whole numbers are taken as 16 bits, fractions as 0 to 1."""
RESIZES = SQUASH, PAD, CROP = ("squash", "pad", "crop")
"""How an image becomes the square that a backbone is shown."""


DRAWN_OTHERWISE = "one seed draws other weights on another backend"
"""Why drawn weights may differ: part of them, what batch normalisation goes by, is computed."""


@dataclass(frozen=True, kw_only=True)
class FeatureKind:
    """What must be the same for features to mean the same.

    A store's header and a head's metadata are kinds with more to them: classes, views and dtype say what a store holds
    of the features, and a head was trained on, and not what the features are.

    Attributes:
        feature_shape: (height, width, channels) of one bottleneck.
        backbone: Name in keras.applications, name of the Keras file that it is in, or ``unknown``.
        alpha: Width multiplier of the backbone, where it has one.
        weights: ``imagenet``, ``random:SEED`` or the file's name.
        weights_sha256: Hash of the backbone's weight arrays, empty where unknown.
        image_size: Side in pixels of the square that the backbone is shown; 0 where unknown.
        preprocessing: One of ``features.extraction.backbone_spec.PREPROCESSINGS``; ``unknown`` where unknown, as in
            stores that were converted.
        intensity: How images of more than 8 bits became greys: ``8 bits`` where there were none, else what
            ``features.store.intensity`` reads; ``unknown`` where each was scaled by itself, as once all were.
        resize: One of ``RESIZES``: how images became squares. Where the image size is unknown, so is this.
        layer: Whose output the features are, where that is not the backbone's own.
        backbone_sha256: Hash of the file that the backbone is in; empty for one of keras.applications.
    """

    feature_shape: tuple[int, int, int]
    backbone: str = UNKNOWN
    alpha: float | None = None
    weights: str = UNKNOWN
    weights_sha256: str = ""
    image_size: int = 0
    preprocessing: str = UNKNOWN
    intensity: str = UNKNOWN
    resize: str = SQUASH
    layer: str = ""
    backbone_sha256: str = ""

    @property
    def origin(self) -> dict[str, Any]:
        """All but the shape: where features come from, as JSON types; of what came later, what there is of it."""
        names = (field.name for field in fields(FeatureKind) if field.name != "feature_shape")
        return {name: value for name in names if (value := getattr(self, name)) or name not in LATER}

    @property
    def drawn(self) -> bool:
        """Whether the weights are random ones."""
        return self.weights.partition(":")[0] == "random"

    def differences(self, other: FeatureKind, *, if_known: bool = False) -> Iterator[tuple[str, Any, Any]]:
        """Yields (field, mine, theirs) where two kinds differ.

        The weights' name is not compared: their hash is what counts, and a file may be renamed; nor is that of a file
        with the backbone. Nor is the intensity where one side scaled nothing, or does not say.

        Args:
            other: The other kind.
            if_known: Whether to pass over what one of them does not know.
        """
        unknown: set[str] = set()
        if if_known:
            unknown = {name for kind in (self, other) for name in kind._unknown()}
        for field in fields(FeatureKind):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            free = bool(field.name == "intensity" and {mine, theirs} & {EIGHT_BITS, UNKNOWN})
            free = free or (field.name == "backbone" and "" not in (self.backbone_sha256, other.backbone_sha256))
            if mine != theirs and field.name != "weights" and field.name not in unknown and not free:
                yield field.name, mine, theirs

    def _unknown(self) -> Iterator[str]:
        """Names of the fields that are not known; some are unknown with the backbone that they belong to."""
        for name in ("backbone", "weights_sha256", "image_size", "preprocessing"):
            if getattr(self, name) in (UNKNOWN, "", 0):
                yield name
        if not self.image_size:
            yield "resize"
        if self.backbone == UNKNOWN:
            yield from ("alpha", *LATER)

    def texts(self) -> dict[str, str]:
        """Returns the origin for people, by what each line is about."""
        told = {"alpha": "" if self.alpha is None else f"{self.alpha:g}", "layer": self.layer}
        told["sha256"] = self.backbone_sha256[:16]
        return {
            "backbone": ", ".join([self.backbone, *(f"{name} {text}" for name, text in told.items() if text)]),
            "weights": f"{self.weights} (sha256 {self.weights_sha256[:16] or UNKNOWN})",
            "image size": f"{self.image_size} px" if self.image_size else UNKNOWN,
            "resize": _RESIZES.get(self.resize, self.resize) if self.image_size else UNKNOWN,
            "preprocessing": self.preprocessing,
            "intensity": _INTENSITIES.get(self.intensity, self.intensity),
        }


_RESIZES = {
    SQUASH: "squash: stretched to the square",
    PAD: "pad: the aspect ratio kept, black around it",
    CROP: "crop: the aspect ratio kept, the middle of it",
}
_INTENSITIES = {
    EIGHT_BITS: "8 bits, nothing to scale",
    BY_TYPE: "by type: 0:65535 of whole numbers, 0:1 of fractions",
    UNKNOWN: "unknown: images of more than 8 bits each by itself",
}
