"""How numbers of more than 8 bits become greys: one scale for a whole data set, and how it is written down.

An image of 8 bits is taken as it is. Other numbers are put on a linear scale from black to white, and what lies outside
is clipped: the same number is the same grey in every file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.store.kind import BY_TYPE, EIGHT_BITS, UNKNOWN

Greys = npt.NDArray[np.uint8]
SIXTEEN_BITS = 65535
GRAMMAR = "LOW:HIGH, two numbers, the black one below the white one"
_SCALES = re.compile(r"whole=(?P<whole>[^,]+),fractions=(?P<fractions>[^,]+)")
_BLOCK = 1 << 20
"""Numbers that are scaled at once: as float64 a large scan would need eight times its memory."""


@dataclass(frozen=True)
class Scale:
    """A linear scale: ``low`` is black, ``high`` is white.

    Raises:
        InputError: They are not finite, or not in this order.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise InputError("--intensity", expected=GRAMMAR, found=self)

    def __str__(self) -> str:
        return f"{_spelled(self.low)}:{_spelled(self.high)}"

    def greys(self, values: npt.NDArray[Any]) -> Greys:
        """Returns numbers of any shape as greys; what lies outside is clipped, what is no number (NaN) is black."""
        if values.dtype == np.uint16:
            looked_up: Greys = _table(self)[values]
            return looked_up
        return _blockwise(values, self._greys)

    def _greys(self, values: npt.NDArray[Any]) -> Greys:
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinities are dealt with below
            scaled = (values.astype(np.float64) - self.low) * (255 / (self.high - self.low))
        greys: Greys = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)).astype(
            np.uint8
        )
        return greys


@lru_cache(maxsize=16)
def _table(scale: Scale) -> Greys:
    return _blockwise(np.arange(SIXTEEN_BITS + 1, dtype=np.uint32), scale._greys)


def _blockwise(values: npt.NDArray[Any], function: Callable[[npt.NDArray[Any]], Greys]) -> Greys:
    greys = np.empty(values.shape, np.uint8)
    flat, out = values.reshape(-1), greys.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        out[start : start + _BLOCK] = function(flat[start : start + _BLOCK])
    return greys


WHOLE = Scale(0, SIXTEEN_BITS)
"""Of whole numbers where nothing else is told: all of 16 bits."""
FRACTIONS = Scale(0, 1)
"""Of fractions where nothing else is told."""


@dataclass(frozen=True)
class Intensity:
    """The scales of a data set, by the type of an image's numbers.

    Attributes:
        whole: Of whole numbers of more than 8 bits.
        fractions: Of floating-point numbers.
        by_itself: Whether each image is scaled by its own range instead, as all were before scales were recorded.
    """

    whole: Scale = WHOLE
    fractions: Scale = FRACTIONS
    by_itself: bool = False

    def __str__(self) -> str:
        """What a store and a head keep: ``parse_intensity`` reads it."""
        if self.by_itself:
            return UNKNOWN
        if self == Intensity():
            return BY_TYPE
        if self.whole == self.fractions:
            return str(self.whole)
        return f"whole={self.whole},fractions={self.fractions}"

    def scale_of(self, dtype: np.dtype[Any]) -> Scale:
        """Returns the scale of numbers of a type."""
        return self.fractions if dtype.kind == "f" else self.whole

    def greys(self, values: npt.NDArray[Any]) -> Greys:
        """Returns an image's numbers as greys."""
        return _greys_by_itself(values) if self.by_itself else self.scale_of(values.dtype).greys(values)


def parse_intensity(text: str) -> Intensity:
    """Reads what ``--intensity`` or a file says.

    Args:
        text: ``LOW:HIGH``; or what ``str`` of an ``Intensity`` gives; or ``8 bits``, which is what a data set without
            a deeper image says, and leaves the scale to the type.

    Raises:
        InputError: It is none of these.
    """
    match = _SCALES.fullmatch(text)
    if match:
        return Intensity(_scale(match["whole"]), _scale(match["fractions"]))
    if text in (BY_TYPE, EIGHT_BITS):
        return Intensity()
    return Intensity(by_itself=True) if text == UNKNOWN else Intensity(_scale(text), _scale(text))


def value_range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Returns the least and the largest number of an image that is finite; infinity and minus infinity for none."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (math.inf, -math.inf)


def _scale(text: str) -> Scale:
    try:
        low, high = map(float, text.split(":"))
    except ValueError as error:
        hint = "e.g. 0:4095, or -1000:1000"
        raise InputError("--intensity", expected=GRAMMAR, found=ascii(text)[1:81], hint=hint) from error
    return Scale(low + 0.0, high + 0.0)


def _spelled(number: float) -> str:
    number = float(number)  # Python 3.11 asks no int whether it is whole
    return f"{int(number)}" if number.is_integer() and abs(number) < 1e15 else repr(number)


def _greys_by_itself(values: npt.NDArray[Any]) -> Greys:
    """Scales an image by its own range: only for stores and heads that do not say how their images were scaled.

    Whole numbers are taken as 16 bits. Fractions are taken as 0 to 1, else 0 to 255, else 0 to 65535, whichever holds
    them. What fits no range is stretched from its minimum to its maximum.
    """
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    whites = (SIXTEEN_BITS,) if values.dtype.kind in "iu" else (1, 255, SIXTEEN_BITS)
    fitting = [white for white in whites if low >= 0 and high <= white]
    if fitting:
        scale = 255 / fitting[0]
    else:
        numbers, scale = numbers - low, 255 / max(high - low, float(np.finfo(np.float64).tiny))
    scaled: Greys = np.rint(numbers * scale).astype(np.uint8)
    return scaled
