"""The rows that a head misclassifies, and pictures of what it saw in them."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from features.images.content import UNKNOWN, read_content
from features.images.decode import UndecodableError, original_image
from features.images.pages import source_of
from features.images.reading import ImageFile, Reading, file_holding
from features.runtime.errors import InputError
from features.runtime.text import printable
from features.store.intensity import parse_intensity
from features.store.schema import Rows
from features.store.source import FeatureSource
from heads.metrics.scoring import Probabilities
from heads.saliency.pictures import draw_heatmap

PICTURE_SIDE = 320
"""Pixels of the longer side of a picture."""
_BATCH = 64


@dataclass(frozen=True)
class Mistake:
    """A row that was misclassified.

    Attributes:
        row: In the store.
        path: Of the image, relative to the image folder.
        true: Index of the true class.
        called: Index of the most probable class.
        probabilities: (classes,).
    """

    row: int
    path: str
    true: int
    called: int
    probabilities: Probabilities


@dataclass(frozen=True)
class Sight:
    """Pictures of a mistake, as addresses that contain them (``data:``).

    Attributes:
        image: The image, or '' where it cannot be had.
        for_called: What speaks for the class that it was called, over the image; '' where nothing does, None where that
            cannot be said.
        for_true: What speaks for its true class, likewise.
        reason: Why there is no picture, or ''.
    """

    image: str = ""
    for_called: str | None = None
    for_true: str | None = None
    reason: str = ""


def mistakes(probabilities: Probabilities, store: FeatureSource, rows: Rows) -> list[Mistake]:
    """Returns the rows misclassified, those of which the head was surest first.

    Args:
        probabilities: (rows, classes).
        store: Where the rows are.
        rows: In the order of the probabilities.
    """
    called = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(called != store.labels[rows])
    wrong = wrong[np.argsort(-probabilities[wrong, called[wrong]], kind="stable")]
    return [
        Mistake(
            row=int(rows[place]),
            path=store.header.paths[rows[place]],
            true=int(store.labels[rows[place]]),
            called=int(called[place]),
            probabilities=probabilities[place],
        )
        for place in wrong
    ]


def check_images(images: Path, store: FeatureSource) -> None:
    """Refuses a folder that holds none of a store's images.

    Raises:
        InputError: Naming the folder, and an image that is not in it.
    """
    paths = store.header.paths
    if not any(_is_file(_inside(images, path)) for path in paths):
        found = "none of them" if _is_folder(images) else "no such folder"
        expected = f"the folder with {store.path}'s images, such as {printable(paths[0])}"
        raise InputError(images, expected=expected, found=found)


def can_be_mapped(store: FeatureSource) -> bool:
    """Whether features tell places of an image apart: vectors, maps of 1 x 1, do not."""
    return store.header.feature_shape[:2] != (1, 1)


def sights(model: Any, store: FeatureSource, found: list[Mistake], images: Path) -> Iterator[Sight]:
    """Yields the pictures of each mistake; the maps come from the features that the store holds.

    Args:
        model: The head.
        store: Its view ``identity`` is what the maps are made of; without that view, or of vectors, there are none.
        found: The mistakes.
        images: The folder that the store was extracted from.
    """
    from heads.saliency.gradcam import class_activation_map

    header = store.header
    # of whatever size: the store was made of this very file, and with a limit of its own
    reading = Reading(parse_intensity(header.intensity), sys.maxsize, header.resize)
    views = header.views
    for start in range(0, len(found), _BATCH):
        batch = found[start : start + _BATCH]
        maps: list[Any] = [(None, None)] * len(batch)
        if "identity" in views and can_be_mapped(store):
            features = store.take(np.array([one.row for one in batch]), views.index("identity"))
            kinds = ([one.called for one in batch], [one.true for one in batch])
            maps = list(zip(*(class_activation_map(model, features, np.array(kind)) for kind in kinds), strict=True))
        for one, heats in zip(batch, maps, strict=True):
            digest = b"" if store.contents is None else store.contents[one.row].tobytes()
            yield _sight(_inside(images, one.path), _MadeOf(header.sizes[one.row], digest), heats, reading)


@dataclass(frozen=True)
class _MadeOf:
    """The file that a row was made of: its size, 0 where unknown, and its digest, nothing or zeros where unknown."""

    size: int
    digest: bytes


def _sight(
    source: ImageFile,
    made_of: _MadeOf,
    heats: tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None],
    reading: Reading,
) -> Sight:
    path, size = file_holding(source), made_of.size
    if size and _is_file(path) and path.stat().st_size != size:
        return Sight(reason=f"another file: {path.stat().st_size} bytes, where the store was made of one of {size}")
    content = read_content(source)
    if any(made_of.digest) and content.digest not in (UNKNOWN, made_of.digest):
        return Sight(reason="another file: its content is not that of the one that the store was made of")
    try:
        image = original_image(content.source, reading)
    except UndecodableError as error:
        return Sight(reason=str(error))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BILINEAR)
    for_called, for_true = (_drawn(image, heat, reading.resize) for heat in heats)
    return Sight(_address(image), for_called, for_true)


def _drawn(image: Image.Image, heat: npt.NDArray[Any] | None, resize: str) -> str | None:
    if heat is None:
        return None
    return _address(draw_heatmap(image, heat, resize=resize)) if heat.any() else ""


def _inside(images: Path, path: str) -> ImageFile:
    """The image in the folder: a store that was made by others may not lead out of it."""
    parts = PurePosixPath(path).parts
    return source_of(images, "/".join(part for part in parts if part not in ("/", "..")))


def _is_file(source: ImageFile) -> bool:
    try:
        return file_holding(source).is_file()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _address(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
