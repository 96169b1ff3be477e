"""Occlusion maps (Zeiler and Fergus 2014, arXiv:1311.2901): what a class loses when a place of the image is covered.

Unlike Grad-CAM this needs no gradient and no assumption about the head: the whole way from image to class is asked
again, once for each place and view. It costs as many forward passes through the backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from features.extraction.pipeline import FeatureMaker
from features.images.resizing import Box
from features.images.views import Picture, View
from heads.files.head_file import Head
from heads.metrics.calibration import with_temperature
from heads.metrics.scoring import Probabilities, mean_probabilities, predict_batch


@dataclass(frozen=True)
class Grid:
    """Where patches lie.

    Attributes:
        places: Places along the image's shorter side; the longer one has more, as its length asks.
        cover: Side of a patch, in places: patches overlap, so that no lesion is only ever half covered.
        inside: The part of the picture that they cover; all of it where None.
    """

    places: int = 12
    cover: float = 2.5
    inside: Box | None = None


PATCHES = Grid()
_LONGEST = 4.0
"""No side has more than this many times the places of the shorter one, however long it is."""
_NOTHING = (slice(0), slice(0))


def occlusion_map(
    head: Head,
    backbone: FeatureMaker,
    views: Sequence[View],
    picture: Picture,
    class_index: int,
    *,
    aspect: float,
    batch_size: int,
    grid: Grid = PATCHES,
) -> npt.NDArray[np.float32]:
    """Covers one place of an image after the other with a grey patch and asks for the probability of a class.

    The grey is the image's own mean, so that a patch is no new object: on a dark scan mid grey would be one. Patches
    are square on the image as it was before it was resized to the backbone's square.

    Args:
        head: The head.
        backbone: The one whose features it takes.
        views: Probabilities are averaged over these views of the covered image, then calibrated, as where it is
            predicted.
        picture: The image as the backbone is shown it: (size, size, 3).
        class_index: The class.
        aspect: Width / height of the part of the original image that the patches cover.
        batch_size: Upper bound of images in a forward pass.
        grid: Where the patches lie.

    Returns:
        (rows, columns): by how much the probability falls where that place is covered, in [-1, 1]; below 0 where it
        rises. Place (0, 0) is the upper left corner of what patches cover; no border of that is left out.

    Raises:
        BottleneckError: The batch does not fit into memory.
    """
    places, cover = grid.places, grid.cover
    rows, columns = (round(places * min(_LONGEST, max(1.0, ratio))) for ratio in (1 / aspect, aspect))
    left, top, right, bottom = grid.inside or (0, 0, len(picture), len(picture))
    upright = [covered_pixels(row, rows, cover, bottom - top, top) for row in range(rows)]
    across = [covered_pixels(column, columns, cover, right - left, left) for column in range(columns)]
    patches = [_NOTHING, *product(upright, across)]
    # Always a full batch, and the same for images of any aspect, so that the backbone's program is compiled once.
    size = min(batch_size, places**2 + 1)
    grey = np.rint(picture[top:bottom, left:right].mean(axis=(0, 1))).astype(np.uint8)
    found: list[Probabilities] = []
    for start in range(0, len(patches), size):
        covered = np.repeat(picture[None], size, axis=0)
        for image, patch in zip(covered, patches[start:], strict=False):
            image[patch] = grey
        seen = [_probabilities(head, backbone, np.stack([view.apply(image) for image in covered])) for view in views]
        found.append(with_temperature(mean_probabilities(seen), head.metadata.temperature)[:, class_index])
    whole, *without = np.concatenate(found)[: len(patches)]
    return np.reshape(whole - np.array(without), (rows, columns))


def _probabilities(head: Head, backbone: FeatureMaker, pictures: npt.NDArray[np.uint8]) -> Probabilities:
    limit = np.finfo(head.metadata.dtype).max
    features = np.clip(backbone.features(pictures), -limit, limit).astype(head.metadata.dtype)
    return predict_batch(head.model, features, len(pictures))


def covered_pixels(place: int, places: int, cover: float, size: int, start: int = 0) -> slice:
    """Returns the pixels of one side that a patch covers: it is centred on its place, and cut at the border.

    Args:
        place: Which, from 0.
        places: In all, along this side.
        cover: Length of a patch, in places.
        size: Of the side, in pixels.
        start: Where it begins.
    """
    first, last = (round((place + 0.5 + edge * cover / 2) * size / places) for edge in (-1, 1))
    first = min(max(0, first), size - 1)
    return slice(start + first, start + min(max(last, first + 1), size))
