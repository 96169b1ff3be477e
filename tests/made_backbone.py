"""Backbones that are there at once, for tests of who makes features and what becomes of them."""

from __future__ import annotations

import numpy as np
import pytest

from features.extraction.backbone_spec import BackboneSpec

SMALL = {"backbone": "mobilenet", "alpha": 0.25, "weights": "random:7", "image_size": 32, "batch_size": 4}
"""Options of an extraction, of the smallest network there is where no backbone is made up."""


class MadeBackbone:
    """Features are the mean colours of an image; ``by_place`` of its place in the batch, as the last bits of real ones.

    Attributes:
        shown: How many images all of its class saw, but for black ones, which fill a batch.
    """

    feature_shape = (1, 1, 3)
    remark = ""
    by_place = 1 / 1024
    shown = 0

    def __init__(self, spec: BackboneSpec | None = None) -> None:
        self.image_size = spec.size if spec else 32
        self.weights_sha256 = f"{len(spec.name) if spec else 0:02d}" * 32

    def features(self, images: np.ndarray) -> np.ndarray:
        """(batch, size, size, 3) uint8 to (batch, 1, 1, 3) float32."""
        type(self).shown += int(np.count_nonzero(images.any(axis=(1, 2, 3))))
        place = self.by_place * np.arange(len(images), dtype=np.float32)[:, None]
        return (images.mean(axis=(1, 2)) + 1 + place).astype(np.float32)[:, None, None]


def mean_colours(images: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(batch, height, width, 3) to (batch, rows, columns, 3) float32: the mean colours of so many places."""
    batch, height, width, colours = images.shape
    places = images.reshape(batch, rows, height // rows, columns, width // columns, colours)
    return places.mean(axis=(2, 4), dtype=np.float32)


class Places:
    """Features are the mean colours of places of an image, or how bright these are.

    Attributes:
        shapes: Of all that it was shown.
    """

    def __init__(self, rows: int, columns: int, *, size: int, grey: bool = False, factor: float = 1.0) -> None:
        self.image_size, self.feature_shape = size, (rows, columns, 1 if grey else 3)
        self.grey, self.factor = grey, factor
        self.shapes: list[tuple[int, ...]] = []

    def features(self, images: np.ndarray) -> np.ndarray:
        """(batch, size, size, 3) uint8 to float32."""
        self.shapes.append(images.shape)
        means = mean_colours(images, *self.feature_shape[:2])
        with np.errstate(invalid="ignore"):
            return (means.mean(axis=-1, keepdims=True) if self.grey else means) * np.float32(self.factor)


class Mosaic:
    """Features are the mean colours of 4 x 4 places, each row for itself, and their squares."""

    feature_shape = (4, 4, 6)
    weights_sha256 = "cd" * 32
    remark = ""

    def __init__(self, spec: BackboneSpec) -> None:
        self.image_size = spec.size
        self.weights_name = spec.weights_name

    def features(self, images: np.ndarray) -> np.ndarray:
        """(batch, size, size, 3) uint8 to (batch, 4, 4, 6) float32."""
        means = mean_colours(images, 4, 4) / np.float32(255)
        return np.concatenate([means, means**2], axis=-1)


def lay_mosaics(patch: pytest.MonkeyPatch) -> None:
    """Makes every backbone that is built a mosaic."""
    patch.setattr("features.extraction.extraction.build_backbone", Mosaic)
    patch.setattr("features.extraction.extraction.start_backend", lambda: None)
    patch.setattr("heads.files.backbone.build_backbone", Mosaic)
