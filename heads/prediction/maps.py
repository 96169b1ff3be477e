"""The maps of predicted images: computed, drawn and written, for ``heads.predict`` and for notebooks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image

from features.extraction.pipeline import FeatureMaker
from features.images.decode import decode_image, original_image
from features.images.reading import ImageFile, Reading, Tally
from features.images.resizing import content_of
from features.images.views import View
from features.runtime.errors import BottleneckError
from features.store.kind import CROP, SQUASH
from heads.files.head_file import Head
from heads.metrics.scoring import Probabilities
from heads.prediction.download import is_url
from heads.saliency.gradcam import class_activation_map
from heads.saliency.occlusion import PATCHES, occlusion_map
from heads.saliency.pictures import draw_heatmap, save_heatmap, with_caption

NOTICEABLE = 0.02
"""Occlusion maps are drawn on the scale of their largest fall, but not of a smaller one: that would enlarge noise."""
_SAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_NAME_LENGTH = 80


@dataclass(frozen=True)
class PredictedImage:
    """An image that could be used, and what its maps are made of.

    Attributes:
        path: Where its content is.
        probabilities: (classes,).
        features: (height, width, channels) of the image as it is, in no other view.
    """

    path: ImageFile
    probabilities: Probabilities
    features: npt.NDArray[Any]

    @property
    def called(self) -> int:
        """The most probable class."""
        return int(self.probabilities.argmax())


@dataclass(frozen=True)
class ImageMap:
    """What speaks for a class in an image.

    Attributes:
        values: (height, width), coarser than the image.
        shown: The same in [0, 1], as it is drawn.
        caption: Class, probability, and what the map is.
        resize: How it lies over the image: as the square does that this way to resize makes (``squash`` for a map of
            all of the image and no more).
    """

    values: npt.NDArray[np.float32]
    shown: npt.NDArray[np.float32]
    caption: str
    resize: str = SQUASH

    def picture(self, image: Image.Image) -> Image.Image:
        """Draws the map over its image (RGB), with the caption beneath.

        Raises:
            BottleneckError: There is not enough memory.
        """
        try:
            return with_caption(draw_heatmap(image, self.shown, resize=self.resize), self.caption)
        except MemoryError as error:
            raise BottleneckError(f"not enough memory to draw {image.width} x {image.height} pixels") from error


@dataclass(frozen=True)
class MapMaker:
    """Computes maps of predicted images.

    Attributes:
        head: The head.
        backbone: The one whose features it takes.
        views: Over which predictions are averaged.
        batch_size: Upper bound of images in a forward pass.
        reading: How image files are read.
    """

    head: Head
    backbone: FeatureMaker
    views: Sequence[View]
    batch_size: int
    reading: Reading = field(default_factory=Reading)

    def original(self, path: ImageFile) -> Image.Image:
        """Returns an image in its own resolution, as it was read for the prediction.

        Raises:
            UndecodableError: It cannot be had.
            BottleneckError: There is not enough memory.
        """
        return original_image(path, self.reading)

    def heatmap(self, image: PredictedImage, class_index: int) -> ImageMap:
        """Returns where the head sees what speaks for a class: Grad-CAM."""
        heat = class_activation_map(self.head.model, image.features, class_index)
        remark = "Grad-CAM" if heat.any() else "Grad-CAM: nothing speaks for it"
        return ImageMap(heat, heat, f"{self._said(image, class_index)}, {remark}", self.reading.resize)

    def occlusion(self, image: PredictedImage, class_index: int) -> ImageMap:
        """Returns by how much the probability of a class falls where a place of the image is covered.

        Raises:
            UndecodableError: The image cannot be had in its own resolution.
            BottleneckError: There is not enough memory.
        """
        original, side, resize = self.original(image.path), self.backbone.image_size, self.reading.resize
        falls = occlusion_map(
            self.head,
            self.backbone,
            self.views,
            decode_image(image.path, side, replace(self.reading, tally=Tally())),
            class_index,
            aspect=1.0 if resize == CROP else original.width / original.height,
            batch_size=self.batch_size,
            grid=replace(PATCHES, inside=content_of(original.size, side, resize)),
        )
        largest = float(falls.max())
        shown = np.clip(falls, 0, None) / max(largest, NOTICEABLE)
        said = f"{self._said(image, class_index)}, up to {max(largest, 0):.3f} less where covered"
        return ImageMap(falls, shown, said, CROP if resize == CROP else SQUASH)

    def _said(self, image: PredictedImage, class_index: int) -> str:
        return f"{self.head.metadata.classes[class_index]} {image.probabilities[class_index]:.3f}"


@dataclass(frozen=True)
class MapFolder:
    """A folder of maps, of two images never under one name.

    Attributes:
        folder: It exists.
        maker: Makes the maps.
        occlusion: Whether there are occlusion maps beside the heat maps.
    """

    folder: Path
    maker: MapMaker
    occlusion: bool = False

    def draw(
        self, name: str, path: ImageFile, probabilities: Probabilities, features: npt.NDArray[Any]
    ) -> dict[str, str]:
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
        image, original = PredictedImage(path, probabilities, features), self.maker.original(path)
        file = self.folder / f"{picture_name(name)}.png"
        heat = self.maker.heatmap(image, image.called)
        drawn = {"heatmap": str(save_heatmap(file, heat.picture(original), heat.values))}
        if self.occlusion:
            falls = self.maker.occlusion(image, image.called)
            file = file.with_suffix(".occlusion.png")
            drawn["occlusion"] = str(save_heatmap(file, falls.picture(original), falls.values))
        return drawn


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
