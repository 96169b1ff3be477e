"""An image of any shape as the square that a backbone is shown, and where the two lie over each other."""

from __future__ import annotations

from PIL import Image

from features.store.kind import CROP, PAD, SQUASH

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first that are outside."""


def resized(image: Image.Image, side: int, resize: str = SQUASH) -> Image.Image:
    """Returns an image of mode L or RGB as a square, bilinear and antialiased.

    Args:
        image: Any shape.
        side: Of the square, in pixels.
        resize: ``squash`` stretches it, ``pad`` fits all of it in and leaves the rest black, ``crop`` takes what the
            middle shows in full: the shorter side as it is, of the longer one as much.
    """
    if resize != PAD:
        return image.resize((side, side), Image.Resampling.BILINEAR, square_of(image.size, resize))
    left, top, right, bottom = content_of(image.size, side, resize)
    square = Image.new(image.mode, (side, side))
    square.paste(image.resize((right - left, bottom - top), Image.Resampling.BILINEAR), (left, top))
    return square


def square_of(size: tuple[int, int], resize: str) -> Box:
    """Returns where on an image the square lies: beyond it for ``pad``, within for ``crop``.

    Args:
        size: Width and height of the image.
        resize: As in ``resized``.
    """
    width, height = size
    if resize == SQUASH:
        return (0, 0, width, height)
    side = min(size) if resize == CROP else max(size)
    left, top = (width - side) // 2, (height - side) // 2
    return (left, top, left + side, top + side)


def content_of(size: tuple[int, int], side: int, resize: str) -> Box:
    """Returns where in the square the image lies: everywhere, but for ``pad``.

    Args:
        size: Width and height of the image.
        side: Of the square.
        resize: As in ``resized``.
    """
    if resize != PAD:
        return (0, 0, side, side)
    width, height = (max(1, round(side * length / max(size))) for length in size)
    left, top = (side - width) // 2, (side - height) // 2
    return (left, top, left + width, top + height)
