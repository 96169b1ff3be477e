"""The maps of predicted images: computed, drawn and written, for ``heads.predict``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from features.extraction.pipeline import FeatureMaker
from features.images.decode import decode_image, original_image
from features.images.views import View
from heads.files.head_file import Head
from heads.metrics.scoring import Probabilities
from heads.prediction.download import is_url
from heads.saliency.gradcam import class_activation_map
from heads.saliency.occlusion import occlusion_map
from heads.saliency.pictures import save_heatmap

NOTICEABLE = 0.02
"""Occlusion maps are drawn on the scale of their largest fall, but not of a smaller one: that would enlarge noise."""


@dataclass(frozen=True)
class MapFolder:
    """A folder of maps, of two images never under one name.

    Attributes:
        folder: It exists.
        head: The head.
        backbone: The one whose features it takes.
        views: Over which predictions are averaged.
        occlusion_batch: Upper bound of images in a forward pass for an occlusion map; 0 for no such maps.
    """

    folder: Path
    head: Head
    backbone: FeatureMaker
    views: Sequence[View]
    occlusion_batch: int = 0

    def draw(self, name: str, path: Path, probabilities: Probabilities, features: npt.NDArray[Any]) -> dict[str, str]:
        """Writes the maps of an image's most probable class, each a picture and the numbers beside it as ``.npy``.

        Args:
            name: Of the image: a path, or an address.
            path: Where its content is.
            probabilities: (classes,).
            features: (height, width, channels) of the image as it is, in no other view.

        Returns:
            The pictures' paths: ``heatmap``, and ``occlusion`` where it was asked for.

        Raises:
            UndecodableError: The image cannot be had in its own resolution.
            BottleneckError: The disk is full, or there is not enough memory.
        """
        called = int(probabilities.argmax())
        image, file = original_image(path), self.folder / f"{picture_name(name)}.png"
        said = f"{self.head.metadata.classes[called]} {probabilities[called]:.3f}"
        heat = class_activation_map(self.head.model, features, called)
        remark = "Grad-CAM" if heat.any() else "Grad-CAM: nothing speaks for it"
        drawn = {"heatmap": str(save_heatmap(file, image, heat, heat, f"{said}, {remark}"))}
        if self.occlusion_batch:
            falls = occlusion_map(
                self.head,
                self.backbone,
                self.views,
                decode_image(path, self.backbone.image_size),
                called,
                aspect=image.width / image.height,
                batch_size=self.occlusion_batch,
            )
            largest = float(falls.max())
            shown = np.clip(falls, 0, None) / max(largest, NOTICEABLE)
            said += f", up to {max(largest, 0):.3f} less where covered"
            file = file.with_suffix(".occlusion.png")
            drawn["occlusion"] = str(save_heatmap(file, image, falls, shown, said))
        return drawn


_SAFE = re.compile(r"[^A-Za-z0-9_.-]+")


_NAME_LENGTH = 80


def picture_name(name: str) -> str:
    """Returns a file name, without ending, for what is made of an image.

    It is safe for any path or address, tells different ones apart, and is the same in every run.

    Args:
        name: Path or address.
    """
    stem = _SAFE.sub("_", PurePosixPath(_place(name)).stem).strip("._-")[:_NAME_LENGTH]
    identity = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:10]
    return f"{stem}-{identity}" if stem else identity


def _place(name: str) -> str:
    """The part of an address that names a file; a path is one."""
    try:
        return urlsplit(name).path if is_url(name) else name
    except ValueError:  # no proper address
        return ""
