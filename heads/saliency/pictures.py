"""Heat maps as pictures: a map over the image that it explains, with a caption, and its files."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from features.images.resizing import square_of
from features.runtime.files import replacing, write_array
from features.runtime.streams import plain
from features.runtime.text import printable
from features.store.kind import SQUASH

ALPHA = 0.6
"""Opacity of the warmest place."""
_INFERNO = "000003 1b0c41 4b0c6b 781c6d a52c60 cf4446 ed6925 fb9a06 f7d03c fcfea4"
"""Nine equal steps of the colour map of that name (van der Walt and Smith 2015, CC0): even in lightness, and readable
without colour vision."""
_CAPTION_LENGTH = 100
_NO_CHARACTER = "\uffff"
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def _palette() -> list[int]:
    """Red, green, blue of 256 levels."""
    stops = np.array([list(bytes.fromhex(colour)) for colour in _INFERNO.split()])
    places = np.linspace(0, len(stops) - 1, 256)
    levels = [np.interp(places, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return [int(level) for level in np.rint(np.stack(levels, axis=1)).ravel()]


def draw_heatmap(
    image: Image.Image, heat: npt.NDArray[Any], *, resize: str = SQUASH, alpha: float = ALPHA
) -> Image.Image:
    """Lays a map over the image that it explains.

    A place is the more opaque the warmer it is, so that the image stays what it is where there is nothing to see.

    Args:
        image: RGB, at its own resolution and aspect.
        heat: (height, width) in [0, 1], each value the mean over its share of the square; enlarged bilinearly.
        resize: How the square was made of the image (``features.images.resizing``). What of the map lies beyond the
            image is cut off; what of the image is not in the square has no colours.
        alpha: Opacity of a value of 1, in [0, 1].

    Returns:
        An RGB image of the image's size.
    """
    small = Image.fromarray(np.asarray(heat, np.float32) * 255)
    left, top, right, bottom = square_of(image.size, resize)
    across, down = range(max(0, left), min(image.width, right)), range(max(0, top), min(image.height, bottom))
    box = (
        (across.start - left) * small.width / (right - left),
        (down.start - top) * small.height / (bottom - top),
        (across.stop - left) * small.width / (right - left),
        (down.stop - top) * small.height / (bottom - top),
    )
    seen = small.resize((len(across), len(down)), Image.Resampling.BILINEAR, box)
    levels = Image.new("L", image.size)
    levels.paste(seen.convert("L"), (across.start, down.start))
    colours = levels.copy()
    colours.putpalette(_palette())
    return Image.composite(colours.convert("RGB"), image, levels.point([round(level * alpha) for level in range(256)]))


def with_caption(image: Image.Image, text: str) -> Image.Image:
    """Returns the image with a line of text beneath it, on a strip of its own; wider where the text is.

    The font is Pillow's own, so that pictures are the same everywhere. It has the letters of ASCII: for another stands
    its base letter (A for an A with dots), or what a terminal without it is shown, so that names stay different.
    """
    font = ImageFont.load_default(min(40, max(12, image.width // 28)))
    text = "".join(_drawable(char, font) for char in printable(text)[:_CAPTION_LENGTH])[:_CAPTION_LENGTH]
    left, top, right, bottom = font.getbbox(text)
    margin = int(bottom - top) // 2
    width = max(image.width, int(right - left) + 2 * margin)
    framed = Image.new("RGB", (width, image.height + int(bottom - top) + 2 * margin))
    framed.paste(image)
    ImageDraw.Draw(framed).text((margin - left, image.height + margin - top), text, font=font, fill="white")
    return framed


def _drawable(char: str, font: _Font) -> str:
    """A character if the font has it, else what stands for it."""
    if char.isascii() or _has(font, char):
        return char
    base = "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))
    return base if base and all(_has(font, part) for part in base) else plain(char)


def _has(font: _Font, char: str) -> bool:
    """Whether a font has a character: what it lacks, it draws as it draws what is none."""
    drawn, missing = font.getmask(char), font.getmask(_NO_CHARACTER)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)


def save_heatmap(path: Path, picture: Image.Image, heat: npt.NDArray[Any]) -> Path:
    """Writes a picture of a map, and the map itself as ``.npy`` beside it.

    Args:
        path: The picture: ends in .png.
        picture: The map as it is drawn.
        heat: The map, (height, width).

    Returns:
        ``path``.

    Raises:
        BottleneckError: The disk is full or cannot be written.
    """
    write_array(path.with_suffix(".npy"), heat, shared=True)
    with replacing(path, shared=True) as temporary:
        picture.save(temporary)
    return path
