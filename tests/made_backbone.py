"""A backbone that is there at once, for tests of who makes features and what becomes of them."""

from __future__ import annotations

import numpy as np

from features.extraction.backbone_spec import BackboneSpec


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
