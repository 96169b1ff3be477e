"""Pillow's ways that it does not promise to keep, and its settings of a whole process: what is used, in one place.

``tests/features/images/test_pillow_internals.py`` says which one an upgrade has changed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from PIL import Image, ImageFile, TiffImagePlugin

from features.runtime.unseen import Together

_SIXTEEN = re.compile(r"(?P<layout>RGB|RGBA|RGBX|LA);16(?P<order>[BLN])")
_PLACES = ("_frame_pos", "_tag_data_limits")
"""Where a TIFF's pages begin, and, since Pillow 13, how many bytes the tags of each may take."""
_BITS, _PLANES = TiffImagePlugin.BITSPERSAMPLE, TiffImagePlugin.PLANAR_CONFIGURATION


def raise_pixel_limit(pixels: int) -> None:
    """Lets Pillow open images of so many pixels; it never lowers its limit, which is the whole process's."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


@contextmanager
def _without_cut_images() -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


cut_is_damaged = Together(_without_cut_images)
"""Within it an image whose end is missing is damaged, also where a notebook has told Pillow to make the rest up."""


def has_deep_colours(image: Image.Image) -> bool:
    """Whether an image that is opened, not loaded, has channels of 16 bits: of them Pillow gives the upper 8."""
    return _in_planes(image) or has_lower_bytes(image)


def has_lower_bytes(image: Image.Image) -> bool:
    """Whether the lower 8 bits of such channels can be had, too."""
    return (
        bool(_tiles(image)) and not _in_planes(image) and all(_SIXTEEN.fullmatch(_raw(tile)) for tile in _tiles(image))
    )


def give_lower_bytes(image: Image.Image) -> slice:
    """Makes loading an image give the lower 8 bits of its channels: they are read in the other byte order.

    Grey with transparency has one byte order only; there the four bytes of a pixel are taken for four channels.

    Args:
        image: Opened, not loaded; ``has_lower_bytes``.

    Returns:
        Which of its channels are then those of the colours.
    """
    colours = slice(0, 3)
    for number, tile in enumerate(_tiles(image)):
        match = _SIXTEEN.fullmatch(_raw(tile))
        assert match
        if match["layout"] == "LA":
            raw, colours = "RGBA", slice(1, 2)
        else:
            native = "L" if sys.byteorder == "little" else "B"
            order = native if match["order"] == "N" else match["order"]
            raw = f"{match['layout']};16{'L' if order == 'B' else 'B'}"
        arguments: Any = raw if isinstance(tile.args, str) else (raw, *(tile.args or ())[1:])
        _tiles(image)[number] = tile._replace(args=arguments)
    return colours


def read_planes(image: Image.Image) -> None:
    """Leaves a TIFF that keeps 16-bit channels one after another to libtiff: Pillow itself takes them for 8 bits."""
    if _in_planes(image) and isinstance(image, TiffImagePlugin.TiffImageFile) and not image.use_load_libtiff:
        image.use_load_libtiff = True
        arguments = (f"{image.mode};16N", False, image.tag_v2.offset)
        image.tile = [
            image.tile[0]._replace(codec_name="libtiff", extents=(0, 0, *image.size), offset=0, args=arguments)
        ]


Places = Mapping[str, tuple[int, ...]]
"""What an opened TIFF knows of its pages, as far as it was gone through."""


def places_of_pages(image: Image.Image) -> Places:
    """Returns where the pages of a TIFF are; nothing of another image."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return {}
    return {name: tuple(getattr(image, name)) for name in _PLACES if hasattr(image, name)}


def give_places(image: Image.Image, places: Places, number: int) -> None:
    """Lets a TIFF find a page at once: by itself Pillow goes through all pages before it.

    Args:
        image: Opened, still at its first page.
        places: Of the same file; where they do not reach as far, they are of no use.
        number: The page, from 1.
    """
    if number <= min(map(len, places.values()), default=0):
        for name, values in places.items():
            setattr(image, name, list(values))


def _in_planes(image: Image.Image) -> bool:
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode not in ("RGB", "RGBA"):
        return False
    bits: Any = image.tag_v2.get(_BITS, ())
    return image.tag_v2.get(_PLANES) == 2 and set(bits) == {16}


def _tiles(image: Image.Image) -> list[Any]:
    """Where the pixels lie and how: what was made in memory has none of it."""
    tiles: list[Any] = getattr(image, "tile", [])
    return tiles


def _raw(tile: Any) -> str:
    first = tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0]
    return first if isinstance(first, str) else ""
