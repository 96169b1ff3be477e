"""The named, deterministic variants of an image that a store may hold beside the image itself.

A view is one or more steps joined by ``+``, applied from left to right to the resized 8-bit RGB image. What a step
moves into the picture from outside is the nearest pixel of the edge: black would be a line that no scan has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from features.runtime.errors import InputError

Picture = npt.NDArray[np.uint8]
"""(size, size, 3), RGB."""
_Step = Callable[[Picture], Picture]

GRAMMAR = "identity, flip, shift:RIGHT:DOWN, rotate:DEGREES, zoom:FACTOR or contrast:FACTOR, joined by +"
_WHOLE = re.compile(r"-?\d{1,6}", re.ASCII)
_DECIMAL = re.compile(r"-?(\d{1,9}(\.\d{0,9})?|\.\d{1,9})", re.ASCII)
_ZOOM = (0.1, 10.0)
_CONTRAST = (0.0, 10.0)


@dataclass(frozen=True)
class View:
    """One variant of an image.

    Attributes:
        name: Its steps in their canonical spelling, e.g. ``flip+shift:0:16``.
    """

    name: str

    def __post_init__(self) -> None:
        _parse(self.name)

    def apply(self, image: Picture) -> Picture:
        """Returns the variant of a (size, size, 3) uint8 image; the image itself is not changed."""
        for step in _parse(self.name)[1]:
            image = step(image)
        return image


def parse_views(names: str) -> tuple[View, ...]:
    """Parses a list such as ``identity,flip,shift:0:16``.

    Raises:
        InputError: A view is unknown, out of range or there twice; it is named.
    """
    views: list[View] = []
    for name in names.split(","):
        view = View(_parse(name.strip())[0])
        if view in views:
            raise InputError("--views", expected="every view once", found=f"{view.name} twice")
        views.append(view)
    return tuple(views)


@lru_cache(maxsize=256)
def _parse(name: str) -> tuple[str, tuple[_Step, ...]]:
    """The canonical name and the steps of a view; ``identity`` beside other steps is dropped."""
    parts = [_parse_step(name, text) for text in name.split("+")]
    parts = [part for part in parts if part[0] != "identity"] or [("identity", np.copy)]
    return "+".join(text for text, _ in parts), tuple(step for _, step in parts)


def _parse_step(view: str, text: str) -> tuple[str, _Step]:
    match text.split(":"):
        case ["identity"]:
            return "identity", np.copy
        case ["flip"]:
            return "flip", _flip
        case ["shift", x, y] if _WHOLE.fullmatch(x) and _WHOLE.fullmatch(y):
            return f"shift:{int(x)}:{int(y)}", partial(_shift, x=int(x), y=int(y))
        case ["rotate", degrees] if _DECIMAL.fullmatch(degrees):
            return f"rotate:{_spelled(degrees)}", partial(_rotate, degrees=float(degrees))
        case ["zoom", factor] if _DECIMAL.fullmatch(factor) and _ZOOM[0] <= float(factor) <= _ZOOM[1]:
            return f"zoom:{_spelled(factor)}", partial(_zoom, factor=float(factor))
        case ["contrast", factor] if _DECIMAL.fullmatch(factor) and _CONTRAST[0] <= float(factor) <= _CONTRAST[1]:
            return f"contrast:{_spelled(factor)}", partial(_contrast, factor=float(factor))
    hint = f"zoom takes {_ZOOM[0]:g} to {_ZOOM[1]:g}, contrast {_CONTRAST[0]:g} to {_CONTRAST[1]:g}"
    raise InputError("--views", field=repr(view), expected=GRAMMAR, found=repr(text), hint=hint)


def _spelled(number: str) -> str:
    """One spelling for each number: 5.0 and 05 are 5."""
    return np.format_float_positional(float(number) + 0.0, trim="-")


def _flip(image: Picture) -> Picture:
    """Left becomes right: the other eye."""
    return image.take(np.arange(image.shape[1] - 1, -1, -1), axis=1)


def _shift(image: Picture, *, x: int, y: int) -> Picture:
    """Moves the content ``x`` pixels to the right and ``y`` down."""
    return _window(image, left=-x, top=-y, size=image.shape[0])


def _rotate(image: Picture, *, degrees: float) -> Picture:
    """Turns the content about the centre, counter-clockwise, bilinear."""
    size = image.shape[0]
    sine, cosine = round(math.sin(math.radians(degrees)), 15), round(math.cos(math.radians(degrees)), 15)
    margin = math.ceil(size * (abs(sine) + abs(cosine) - 1) / 2) + 1
    centre, inside = size / 2, margin + size / 2
    source = (
        (cosine, -sine, inside - cosine * centre + sine * centre),
        (sine, cosine, inside - sine * centre - cosine * centre),
    )
    turned = _padded(image, margin).transform(
        (size, size), Image.Transform.AFFINE, source[0] + source[1], Image.Resampling.BILINEAR
    )
    return np.array(turned)


def _zoom(image: Picture, *, factor: float) -> Picture:
    """Enlarges (above 1) or reduces (below 1) the content about the centre, bilinear."""
    size = image.shape[0]
    margin = max(0, math.ceil(size * (1 / factor - 1) / 2))
    centre, half = margin + size / 2, size / factor / 2
    box = (centre - half, centre - half, centre + half, centre + half)
    return np.array(_padded(image, margin).resize((size, size), Image.Resampling.BILINEAR, box=box))


def _contrast(image: Picture, *, factor: float) -> Picture:
    """Stretches (above 1) or narrows (below 1) the values about their mean."""
    mean = image.mean()
    table: Picture = np.clip(np.rint(mean + factor * (np.arange(256) - mean)), 0, 255).astype(np.uint8)
    picture: Picture = table[image]
    return picture


def _padded(image: Picture, margin: int) -> Image.Image:
    return Image.fromarray(_window(image, left=-margin, top=-margin, size=image.shape[0] + 2 * margin))


def _window(image: Picture, *, left: int, top: int, size: int) -> Picture:
    """A square cut out of the image and of what surrounds it, which is the nearest pixel of its edge."""
    rows = np.clip(np.arange(top, top + size), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(left, left + size), 0, image.shape[1] - 1)
    return image.take(rows, axis=0).take(columns, axis=1)
