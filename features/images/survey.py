"""What a folder's images of more than 8 bits hold, and the one scale that follows from it.

An image says in its first bytes whether it may have more than 8 bits; only such images are opened, and only some of
these are decoded. What is decided depends on the files alone, and not on how many processors look at them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from features.images.decode import deep_values, is_deep
from features.images.dicom import DicomImage
from features.images.metadata import PNG, png_significant_bits
from features.images.pages import open_image, start_of
from features.images.pillow_internals import raise_pixel_limit
from features.images.reading import Source, described, file_holding, open_file
from features.runtime.errors import BottleneckError
from features.runtime.portable import cpu_count
from features.runtime.text import counted
from features.store.intensity import SIXTEEN_BITS, WHOLE, Intensity, Scale, value_range
from features.store.kind import EIGHT_BITS

DECODED = 500
"""At most so many images are decoded for their range: evenly spaced ones of those with more than 8 bits."""
_SAMPLE = 1 << 16
"""Numbers of an image that its usual range is taken from."""
_USUAL = (0.001, 0.999)
_SLACK = 0.01
"""By which part of their range numbers may exceed a scale: resampling overshoots, as in fractions up to 1.0005."""
_DOUBTFUL = 1 / 2
"""Where values leave at least one bit of their scale unused, the user is told."""
_HEAD = 32
_EIGHT_BIT_STARTS = (b"\xff\xd8", b"GIF8", b"BM", b"RIFF")
_TIFF_BITS, _TIFF_LARGEST = 258, 281
_FRACTION_WHITES = (1, 255, SIXTEEN_BITS)


@dataclass(frozen=True)
class Numbers:
    """Numbers of one type in some images.

    Attributes:
        low: The least number.
        high: The largest.
        usual_low: What all but a thousandth of each image's numbers are above.
        usual_high: What all but a thousandth of each image's numbers are below.
        bits: How many bits the files declare; None among them where one declares nothing below its type's.
    """

    low: float
    high: float
    usual_low: float
    usual_high: float
    bits: frozenset[int | None]

    def __add__(self, other: Numbers) -> Numbers:
        return Numbers(
            min(self.low, other.low),
            max(self.high, other.high),
            min(self.usual_low, other.usual_low),
            max(self.usual_high, other.usual_high),
            self.bits | other.bits,
        )

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def within(self, scale: Scale) -> bool:
        """Whether a scale holds them, but for what overshoots a little."""
        slack = _SLACK * (self.usual_high - self.usual_low)
        return self.usual_low >= scale.low - slack and self.usual_high <= scale.high + slack

    def share_of(self, scale: Scale) -> float:
        """Which part of a scale they cover."""
        return (self.usual_high - self.usual_low) / (scale.high - scale.low)


@dataclass(frozen=True)
class Survey:
    """What a data set's images of more than 8 bits hold.

    Attributes:
        images: How many images there are.
        deep: How many of them have more than 8 bits.
        whole: Whole numbers that were found in those that were decoded; None for none.
        fractions: The same of floating-point numbers.
        windowed: How many have a window of their own (DICOM), which is theirs whatever the scale.
    """

    images: int
    deep: int
    whole: Numbers | None
    fractions: Numbers | None
    windowed: int = 0


@dataclass(frozen=True)
class Choice:
    """The scale of a data set.

    Attributes:
        intensity: As a store records it.
        notes: What the user should know about it, a line each.
    """

    intensity: str
    notes: tuple[str, ...] = ()


def survey_images(sources: Sequence[Source], max_pixels: int) -> Survey:
    """Looks at every image's first bytes, opens those that may have more than 8 bits and decodes some of these.

    What cannot be read is passed over here.
    """
    raise_pixel_limit(max_pixels)
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="survey") as pool:
        looked = [*pool.map(_looked_at, sources)]
        deep = [source for source, scaled in zip(sources, looked, strict=True) if scaled is _Scaled.BY_ALL]
        count = min(len(deep), DECODED)
        chosen = [deep[index * len(deep) // count] for index in range(count)]
        found = [numbers for numbers in pool.map(lambda source: _numbers_of(source, max_pixels), chosen) if numbers]
    by_type: dict[bool, Numbers] = {}
    for fractions, numbers in found:
        by_type[fractions] = by_type[fractions] + numbers if fractions in by_type else numbers
    windowed = sum(scaled is _Scaled.BY_WINDOW for scaled in looked)
    return Survey(len(sources), len(deep), by_type.get(False), by_type.get(True), windowed)


def choose_intensity(survey: Survey, told: Intensity | None) -> Choice:
    """Returns the scale of a data set: what the user told, else what follows from its images.

    Whole numbers are taken as 16 bits, or as the fewer bits that all files declare, where these hold them. Fractions
    are taken as 0 to 1, else 0 to 255, else 0 to 65535, whichever holds those of the whole data set. What is held by
    none of these, as numbers below zero, is stretched from the least to the largest number of the data set.
    """
    if not survey.deep:
        beside = ", but for DICOM with a window of its own" if survey.windowed else ""
        note = f"no image has more than 8 bits{beside}: --intensity changes nothing"
        return Choice(EIGHT_BITS if told is None else str(told), () if told is None else (note,))
    chosen = told or _by_range(survey)
    return Choice(str(chosen), tuple(_notes(survey, chosen, told=told is not None)))


def _by_range(survey: Survey) -> Intensity:
    intensity = Intensity()
    if survey.whole:
        intensity = replace(intensity, whole=_whole_scale(survey.whole))
    if survey.fractions:
        fitting = (scale for scale in (Scale(0, white) for white in _FRACTION_WHITES) if survey.fractions.within(scale))
        intensity = replace(intensity, fractions=next(fitting, None) or _stretched(survey.fractions))
    return intensity


def _whole_scale(numbers: Numbers) -> Scale:
    declared = [bits for bits in numbers.bits if bits is not None]
    if len(declared) == len(numbers.bits) and numbers.low >= 0 and numbers.high < 1 << max(declared):
        return Scale(0, (1 << max(declared)) - 1)
    return WHOLE if numbers.low >= 0 and numbers.high <= SIXTEEN_BITS else _stretched(numbers)


def _stretched(numbers: Numbers) -> Scale:
    high = numbers.high if numbers.high > numbers.low else numbers.low + 1
    return Scale(numbers.low, high)


def _notes(survey: Survey, chosen: Intensity, *, told: bool) -> Iterator[str]:
    deep, others = survey.deep, survey.images - survey.deep
    what = f"{counted(deep, 'image')} of more than 8 bits"
    if others:
        beside = counted(others, "image")
        yield f"{what} beside {beside} of 8 bits, which are taken as they are: is white the same in both?"
    if survey.whole and survey.fractions:
        yield (
            f"some of {what} hold whole numbers ({survey.whole}), others fractions (float, {survey.fractions}):"
            f" shown on the scales {described(chosen)}"
        )
    for numbers, scale, kind in (
        (survey.whole, chosen.whole, "whole numbers"),
        (survey.fractions, chosen.fractions, "fractions (float)"),
    ):
        if numbers:
            yield from _scale_notes(numbers, scale, f"{what}, {kind} in the range {numbers}", told=told)


def _scale_notes(numbers: Numbers, scale: Scale, what: str, *, told: bool) -> Iterator[str]:
    """Yields nothing for a scale that is what anyone expects."""
    shown = f"{what}: {_spelled(scale.low)} is shown black, {_spelled(scale.high)} white, in every image"
    if numbers.usual_low == numbers.usual_high:
        yield f"{shown}; nearly all of them are the same number: there is no contrast to show"
    elif numbers.share_of(scale) < _DOUBTFUL:
        share = numbers.share_of(scale)
        lost = "contrast is nearly lost" if share < _DOUBTFUL / 4 else "contrast is lost"
        yield f"{shown}; most values cover {share:.1%} of that range, dark or flat: {lost}; {_advice(numbers)}"
    elif told:
        return
    elif numbers.low < 0 or scale not in (WHOLE, Scale(0, 1)):
        same = f"other sets for the same heads need --intensity {scale}" if scale == _stretched(numbers) else ""
        yield f"{shown}; {same or '--intensity LOW:HIGH takes another'}"


def _advice(numbers: Numbers) -> str:
    """What to tell instead: the fewest bits that hold whole numbers, and the range that is usual."""
    own = f"{_spelled(numbers.usual_low)}:{_spelled(numbers.usual_high)}"
    if not (numbers.low >= 0 and numbers.high.is_integer() and numbers.usual_high > 255):
        return f"--intensity {own} would use the whole range"
    bits = math.ceil(numbers.usual_high).bit_length()
    return f"are they of {bits} bits, --intensity 0:{(1 << bits) - 1}? or --intensity {own}, all that is used"


def _spelled(number: float) -> str:
    return f"{number:.6g}"


class _Scaled(Enum):
    """How an image becomes greys."""

    NOT = "it has 8 bits"
    BY_WINDOW = "by a window of its own"
    BY_ALL = "by the data set's scale"


def _looked_at(source: Source) -> _Scaled:
    """Whether an image has more than 8 bits; its first bytes are enough for most formats."""
    try:
        start = start_of(source, _HEAD)
        if start.startswith(_EIGHT_BIT_STARTS) or (start.startswith(PNG) and start[24:25] != b"\x10"):
            return _Scaled.NOT
        with open_image(source) as image:
            if isinstance(image, DicomImage) and image.has_window:
                return _Scaled.BY_WINDOW
            return _Scaled.BY_ALL if is_deep(image) else _Scaled.NOT
    except Exception:  # whatever is wrong with it is said where it is decoded
        return _Scaled.NOT


def _numbers_of(source: Source, max_pixels: int) -> tuple[bool, Numbers] | None:
    """Whether an image's numbers are fractions, and what they are; None where it holds none."""
    try:
        values = deep_values(source, max_pixels)
        bits = _declared_bits(source)
    except BottleneckError:  # it will be named where it is skipped
        return None
    if values is None:
        return None
    low, high = value_range(values)
    if low > high:
        return None
    few = values.reshape(-1)[:: -(-values.size // _SAMPLE)]
    few = few[np.isfinite(few)]
    usual = np.quantile(few, _USUAL) if few.size else np.array((low, high))
    numbers = Numbers(low, high, float(usual[0]), float(usual[1]), frozenset((bits,)))
    return values.dtype.kind == "f", numbers


def _declared_bits(source: Source) -> int | None:
    """How many of its bits an image says that it uses: TIFF in two tags, PNG in ``sBIT``."""
    try:
        if start_of(source, _HEAD).startswith(PNG):
            with io.BytesIO(source) if isinstance(source, bytes) else open_file(file_holding(source)) as file:
                return png_significant_bits(file)
        with open_image(source) as image:
            if isinstance(image, DicomImage):
                return image.bits
            tags: Any = getattr(image, "tag_v2", {})
            stored, largest = tags.get(_TIFF_BITS, (16,)), tags.get(_TIFF_LARGEST)
            if max(stored) < 16:
                return int(max(stored))
            largest = max(largest) if isinstance(largest, tuple) else largest
            return int(largest).bit_length() if largest else None
    except Exception:
        return None
