"""One file to one RGB array, or a named reason why not.

Any image that Pillow opens: the first frame of it, turned as its EXIF orientation says, on black where it is
transparent, reduced to 8 bits where it has more.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from features.runtime.errors import BottleneckError

# "Corrupt EXIF data", possible bombs and the like: whether an image can be used is decided here, not by a warning.
# Process-wide, because `catch_warnings` is not safe among the decoding threads.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
Image.init()  # all formats at once: registering them lazily would race among the threads

_DRAFT_FACTOR = 2
"""A JPEG is decoded at reduced scale only where that still leaves this many times the pixels that are needed."""
_TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")
_SIXTEEN_BITS = 65535


class UndecodableError(BottleneckError):
    """An image that cannot be used; the message is the reason, without the file's name."""


def decode_image(source: Path | bytes, size: int) -> npt.NDArray[np.uint8]:
    """Decodes an image and resizes it to a square (bilinear, antialiased, the aspect ratio is not kept).

    Args:
        source: A file, or a file's content.
        size: Side of the square in pixels.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        UndecodableError: It is no image, it is damaged, it is a decompression bomb, or it cannot be read.
        BottleneckError: There is not enough memory.
    """
    return np.array(_decode(source, size).convert("RGB"))


def original_image(source: Path | bytes) -> Image.Image:
    """Decodes an image in full resolution, as an upright RGB image.

    Raises:
        UndecodableError: As ``decode_image``.
        BottleneckError: There is not enough memory.
    """
    return _decode(source, None).convert("RGB")


def _decode(source: Path | bytes, size: int | None) -> Image.Image:
    """The image in mode L or RGB, resized where a size is given; grey stays grey, which is three times less work."""
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            _check_size(image)
            if size is not None:
                image.draft(None, (size * _DRAFT_FACTOR, size * _DRAFT_FACTOR))
            image.load()
            _turn_upright(image)
            upright = _eight_bits(image)
        return upright if size is None else upright.resize((size, size), Image.Resampling.BILINEAR)
    except MemoryError as error:  # says something about this machine, not about the image
        name = "an image" if isinstance(source, bytes) else source
        raise BottleneckError(f"{name}: not enough memory to decode it") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them stumble over
        raise UndecodableError(_reason(source, error)) from error


def _check_size(image: Image.Image) -> None:
    """Refuses from Pillow's limit on; Pillow itself only warns up to twice the limit, and would unpack a bomb."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError


def _reason(source: Path | bytes, error: Exception) -> str:
    """A reason that is the same in every run: no address, no absolute path."""
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "a folder"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            size = len(source) if isinstance(source, bytes) else source.stat().st_size
            return "not an image that Pillow reads" if size else "an empty file"
        case Image.DecompressionBombWarning() | Image.DecompressionBombError():
            return f"more than {Image.MAX_IMAGE_PIXELS} pixels (decompression bomb?)"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"damaged: {text or type(error).__name__}"


def _turn_upright(image: Image.Image) -> None:
    """Turns a loaded image as its EXIF block says, in place: the pixels first, then the block is written anew."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # a damaged block says nothing about the pixels
        return


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns the image in mode L or RGB."""
    mode = image.mode
    if mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if mode == "F" or mode.startswith("I"):
        return Image.fromarray(_scaled(np.asarray(image)))
    if mode in _TRANSPARENT or "transparency" in image.info:
        return _on_black(image)
    if mode == "LAB":
        return _lab_to_rgb(image)
    return image.convert("L" if mode == "1" else "RGB")


def _scaled(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Grey values of more than 8 bits to 8, linearly and never clipped.

    Whole numbers are taken as 16 bits (65535 is white). Fractions are taken as 0 to 1, else 0 to 255, else 0 to 65535,
    whichever holds them. What fits no range is stretched from its minimum to its maximum.
    """
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    whites = (_SIXTEEN_BITS,) if values.dtype.kind in "iu" else (1, 255, _SIXTEEN_BITS)
    fitting = [white for white in whites if low >= 0 and high <= white]
    if fitting:
        scale = 255 / fitting[0]
    else:
        numbers, scale = numbers - low, 255 / max(high - low, float(np.finfo(np.float64).tiny))
    scaled: npt.NDArray[np.uint8] = np.rint(numbers * scale).astype(np.uint8)
    return scaled


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
