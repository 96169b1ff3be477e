"""One file to one RGB array, or a named reason why not.

Any image that Pillow opens: the first frame of it or a page that is named, turned as its EXIF orientation says, on
black where it is transparent, put on the data set's scale where it has more than 8 bits. What surrounds the pixels in
the file never decides whether they can be had.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from features.images.dicom import DicomImage
from features.images.dicom_pixels import DicomError
from features.images.metadata import without_metadata
from features.images.pages import has_pages, may_have_pages, open_image, start_of
from features.images.pillow_internals import (
    give_lower_bytes,
    has_deep_colours,
    has_lower_bytes,
    raise_pixel_limit,
    read_planes,
)
from features.images.plugins import remedy_for
from features.images.reading import Noticed, Page, Reading, Source, Tally, file_holding, open_file
from features.images.resizing import resized
from features.images.room import Room
from features.runtime.errors import BottleneckError
from features.store.intensity import WHOLE, value_range

# "Corrupt EXIF data", possible bombs and the like: whether an image can be used is decided here, not by a warning.
# Process-wide, because `catch_warnings` is not safe among the decoding threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
Image.init()  # all formats at once: registering them lazily would race among the threads

_DRAFT_FACTOR = 2
"""A JPEG is decoded at reduced scale only where that still leaves this many times the pixels that are needed."""
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC = 262
_DEFAULT = Reading()
_REASONS = {
    FileNotFoundError: "no such file",
    IsADirectoryError: "a folder",
    PermissionError: "no permission to read it",
}
_NO_DAMAGE = (MemoryError, *_REASONS, Image.DecompressionBombError)
_room = Room()


class UndecodableError(BottleneckError):
    """An image that cannot be used; the message is the reason, without the file's name."""


def decode_image(source: Source, size: int, reading: Reading = _DEFAULT) -> npt.NDArray[np.uint8]:
    """Decodes an image and resizes it to a square (bilinear, antialiased), as ``reading.resize`` says.

    Args:
        source: A file, a page of one, or a file's content.
        size: Side of the square in pixels.
        reading: How it is read; by default numbers of more than 8 bits are scaled by their type.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        UndecodableError: It is no image, it is damaged, it is a decompression bomb, or it cannot be read.
        BottleneckError: There is not enough memory.
    """
    (square,) = decode_sizes(source, (size,), reading).values()
    if isinstance(square, UndecodableError):
        raise square
    return square


def decode_sizes(
    source: Source, sizes: Sequence[int], reading: Reading = _DEFAULT
) -> dict[int, npt.NDArray[np.uint8] | UndecodableError]:
    """Decodes an image once and makes squares of several sizes of it, each what ``decode_image`` makes.

    A large JPEG, which is decoded at a reduced scale, is decoded once for each scale that the sizes ask for.

    Args:
        source: A file, a page of one, or a file's content.
        sizes: Sides of the squares in pixels.
        reading: How it is read.

    Returns:
        For each size (size, size, 3) uint8, RGB, or why there is none.

    Raises:
        BottleneckError: There is not enough memory.
    """
    squares: dict[int, npt.NDArray[np.uint8] | UndecodableError] = {}
    decoded: list[_Upright] = []
    for size in sizes:
        try:
            upright = next((one for one in decoded if _serves(one, source, size, reading)), None)
            if upright is None:
                upright = _decode(source, size, reading)
                decoded.append(upright)
            with _explained(source, reading.max_pixels):
                squares[size] = np.array(resized(upright.image, size, reading.resize).convert("RGB"))
        except UndecodableError as error:
            squares[size] = error
    return squares


def original_image(source: Source, reading: Reading = _DEFAULT) -> Image.Image:
    """Decodes an image in full resolution, as an upright RGB image.

    Raises:
        UndecodableError: As ``decode_image``.
        BottleneckError: There is not enough memory.
    """
    return _decode(source, None, replace(reading, tally=Tally())).image.convert("RGB")


def deep_values(source: Source, max_pixels: int) -> npt.NDArray[Any] | None:
    """Returns the numbers of an image of more than 8 bits as they are in the file, (height, width) or with colours.

    Args:
        source: A file, a page of one, or a file's content.
        max_pixels: An image of more pixels is refused.

    Returns:
        None where the image has 8 bits.

    Raises:
        UndecodableError: As ``decode_image``.
        BottleneckError: There is not enough memory.
    """
    with _explained(source, max_pixels), _opened(source, max_pixels) as image:
        pixels = image.width * image.height
        if not is_deep(image):
            return None
        with _room.holding(pixels, of=pixels):
            if has_deep_colours(image):
                return _deep_colours(image, source, max_pixels)
            image.load()
            return _numbers(image)


@dataclass(frozen=True)
class _Upright:
    """A decoded image, and at which scale.

    Attributes:
        image: Mode L or RGB: grey stays grey, which is three times less work.
        draft: What its decoder made of the size that was asked for; None where it knows one scale alone.
    """

    image: Image.Image
    draft: object


def _decode(source: Source, size: int | None, reading: Reading) -> _Upright:
    """The image, at the least scale that serves a size; in full where there is none."""
    with _explained(source, reading.max_pixels):
        try:
            return _noted(source, size, reading)
        except _NO_DAMAGE:
            raise
        except Exception:
            mended = _without_metadata(source, size, reading)
            if mended is None:
                raise
            return mended


def _serves(upright: _Upright, source: Source, size: int, reading: Reading) -> bool:
    """Whether an image that was decoded for another size is what is decoded for this one."""
    if upright.draft is None:
        return True
    try:
        with _opened(source, reading.max_pixels) as image:
            return _draft(image, size) == upright.draft
    except Exception:  # as where its metadata are damaged: it is decoded, which says more
        return False


def _draft(image: Image.Image, size: int | None) -> object:
    """Asks for a reduced scale, before the image is loaded; says which it will be."""
    return None if size is None else image.draft(None, (size * _DRAFT_FACTOR, size * _DRAFT_FACTOR))


def _noted(source: Source, size: int | None, reading: Reading) -> _Upright:
    """The image; what is noticed of it counts only once it is there."""
    attempt = replace(reading, tally=Tally())
    upright = _upright(source, size, attempt)
    reading.tally.merge(attempt.tally)
    return upright


def _without_metadata(source: Source, size: int | None, reading: Reading) -> _Upright | None:
    """The image where only what surrounds its pixels is damaged, too large or unheard of; else None."""
    if isinstance(source, Page) and source.number > 1:
        return None
    with io.BytesIO(source) if isinstance(source, bytes) else open_file(file_holding(source)) as file:
        for content in without_metadata(file):
            try:
                return _noted(content, size, reading)
            except _NO_DAMAGE:
                raise
            except Exception:
                continue
    return None


@contextmanager
def _explained(source: Source, max_pixels: int) -> Iterator[None]:
    """Gives what goes wrong its reason."""
    try:
        yield
    except MemoryError as error:  # says something about this machine, not about the image
        name = "an image" if isinstance(source, bytes) else source
        raise BottleneckError(f"{name}: not enough memory to decode it") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them stumble over
        raise UndecodableError(_reason(source, error, max_pixels)) from error


@contextmanager
def _opened(source: Source, max_pixels: int) -> Iterator[Image.Image]:
    """An image whose header is read, at the right page, of a size that is allowed."""
    raise_pixel_limit(max_pixels)
    with open_image(source) as image:
        if image.width * image.height > max_pixels:  # Pillow itself only warns up to twice its limit
            raise Image.DecompressionBombError
        read_planes(image)
        yield image


def _upright(source: Source, size: int | None, reading: Reading) -> _Upright:
    with _opened(source, reading.max_pixels) as image:
        whole = image.width * image.height
        draft = _draft(image, size)
        with _room.holding(image.width * image.height, of=whole):
            deep = has_deep_colours(image)
            if deep:
                reading.tally.add(Noticed.DEEP)
            if deep and reading.intensity.whole != WHOLE and not reading.intensity.by_itself:
                return _Upright(_scaled_colours(image, source, reading), draft)
            image.load()
            if isinstance(image, DicomImage) and image.has_window:
                reading.tally.add(Noticed.WINDOW)
            _turn_upright(image)
            upright = _eight_bits(image, reading)
            if upright is image and image.format == "GIF":
                upright = image.copy()  # asked for pages, Pillow begins anew and lets go of the pixels
        several = may_have_pages(image)
    if several and not isinstance(source, Page) and has_pages(source):
        reading.tally.add(Noticed.PAGES)
    return _Upright(upright, draft)


def _reason(source: Source, error: Exception, max_pixels: int) -> str:
    """A reason that is the same in every run: no address, no absolute path."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    match error:
        case EOFError() if isinstance(source, Page):
            return "no such page"
        case DicomError():
            return str(error)
        case UnidentifiedImageError():
            return _unidentified(source)
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return f"more than {max_pixels} pixels (decompression bomb?), see --max-pixels"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"damaged: {text or type(error).__name__}"


def _unidentified(source: Source) -> str:
    start = start_of(source)
    if (remedy := remedy_for(start)) is not None:
        return remedy
    if start.startswith(_TIFFS):
        return "not an image that Pillow reads: a damaged TIFF, or one of a kind such as 64-bit fractions"
    return "not an image that Pillow reads" if start else "an empty file"


def _turn_upright(image: Image.Image) -> None:
    """Turns a loaded image as its EXIF block says, in place: the pixels first, then the block is written anew."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # a damaged block says nothing about the pixels
        return


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is opened, not loaded, has more than 8 bits."""
    return _has_numbers(image) or has_deep_colours(image)


def _has_numbers(image: Image.Image) -> bool:
    """Whether an image has one channel of more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def _numbers(image: Image.Image) -> npt.NDArray[Any]:
    """The numbers of a loaded image with one channel; 0 for the one that a PNG says is transparent: it is on black."""
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    return np.where(values == transparent, values.dtype.type(0), values) if isinstance(transparent, int) else values


def _eight_bits(image: Image.Image, reading: Reading) -> Image.Image:
    """Returns a loaded image in mode L or RGB."""
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if _has_numbers(image):
        reading.tally.add(Noticed.DEEP)
        return Image.fromarray(_greys(_numbers(image), reading, inverted=_is_inverted(image, reading)))
    if mode in _TRANSPARENT or "transparency" in image.info:
        return _on_black(image)
    if mode == "LAB":
        return _lab_to_rgb(image)
    return image.convert("L" if mode == "1" else "RGB")


def _greys(values: npt.NDArray[Any], reading: Reading, *, inverted: bool = False) -> npt.NDArray[np.uint8]:
    """Numbers of more than 8 bits on the scale of their type; the tally is told what does not fit it."""
    intensity, tally = reading.intensity, reading.tally
    greys = intensity.greys(values)
    if intensity.by_itself:
        return 255 - greys if inverted else greys
    scale = intensity.scale_of(values.dtype)
    low, high = value_range(values)
    if low <= high:
        tally.widen(low, high, scale)
    if low < scale.low or high > scale.high:
        tally.add(Noticed.CLIPPED)
    if values.dtype.kind == "f" and np.isnan(values).any():
        tally.add(Noticed.NO_NUMBERS)
    return 255 - greys if inverted else greys


def _is_inverted(image: Image.Image, reading: Reading) -> bool:
    """Whether zero is white: Pillow turns such images of 8 bits round, and no deeper ones.

    Where each image is scaled by itself, as once all were, TIFFs are not turned round.
    """
    if isinstance(image, DicomImage):
        return image.inverted
    tags: Any = getattr(image, "tag_v2", {})
    return bool(tags.get(_PHOTOMETRIC) == 0) and not reading.intensity.by_itself


def _scaled_colours(image: Image.Image, source: Source, reading: Reading) -> Image.Image:
    """An image with channels of 16 bits, scaled before any of them are lost; on black where it is transparent."""
    values = _deep_colours(image, source, reading.max_pixels)
    colours = Image.fromarray(_greys(values, reading))
    if image.mode not in _TRANSPARENT:
        return colours
    colours.putalpha(image.getchannel("A"))
    return _on_black(colours)


def _deep_colours(image: Image.Image, source: Source, max_pixels: int) -> npt.NDArray[np.uint16]:
    """Loads an image with channels of 16 bits; returns (height, width, 3), upright."""
    lower: npt.NDArray[Any] | None = None
    if has_lower_bytes(image):
        with _opened(source, max_pixels) as again:
            colours = give_lower_bytes(again)
            again.load()
            _turn_upright(again)
            lower = np.asarray(again)[..., colours]
    image.load()
    _turn_upright(image)
    upper = np.asarray(image)[..., :3].astype(np.uint16)
    values: npt.NDArray[np.uint16] = (upper << 8 | (upper if lower is None else lower)).astype(np.uint16)
    return values


def _on_black(image: Image.Image) -> Image.Image:
    """Lays a transparent image on black: what is outside of a scan is black too."""
    opaque = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    black = Image.new(opaque.mode[:-1], opaque.size)
    black.paste(opaque.convert(black.mode), mask=opaque.getchannel("A"))
    return black


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    assert converted is not None
    return converted
