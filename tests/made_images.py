"""Image files: small ones for an extraction; and what Pillow does not write, as TIFFs tag by tag, JPEG segments."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

OLD = 1_500_000_000
"""When ``put_image`` says that an image was last changed, where it is not told."""


def put_image(path: Path, image: Image.Image | np.ndarray, *, time: int = OLD) -> Path:
    """Writes an image file into folders that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    os.utime(path, (time, time))
    return path


def noise(seed: int, *shape: int) -> np.ndarray:
    """Returns pixels of which no two are alike."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def blurred_noise(seed: int) -> Image.Image:
    """Returns 40 x 36 pixels of which much is left where they are made smaller."""
    return Image.fromarray(noise(seed, 5, 5)).resize((40, 36), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Returns an image as a file's content."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(values: np.ndarray, kind: str = "TIFF", **options: Any) -> bytes:
    """Returns numbers as a file's content."""
    return encoded(Image.fromarray(values), kind, **options)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(values: np.ndarray, *extra: bytes) -> bytes:
    """Returns (height, width, channels) uint16 as a PNG; ``extra`` are chunks before its pixels."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + pixels + chunk(b"IEND", b"")


def tiff(
    values: np.ndarray,
    photometric: int,
    *,
    order: str = "<",
    planes: bool = False,
    more: Mapping[int, tuple[int, int, bytes]] | None = None,
) -> bytes:
    """Returns (height, width) or (height, width, channels) as an uncompressed TIFF.

    Args:
        values: The pixels, of any type.
        photometric: 0 white is zero, 1 black is zero, 2 colours.
        order: ``<`` or ``>``.
        planes: Whether the channels lie one after another.
        more: Further tags: type, count and the four bytes of the value.
    """
    height, width, channels = (*values.shape, 1)[:3]
    pixels = values.transpose(2, 0, 1) if planes else values
    data = np.ascontiguousarray(pixels).astype(values.dtype.newbyteorder(order)).tobytes()
    extra, after = b"", 8 + len(data)

    def longs(tag: int, kind: int, numbers: list[int]) -> tuple[int, int, int, bytes]:
        nonlocal extra
        letter = {3: "H", 4: "I"}[kind]
        content = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(content) > 4:
            place, extra = after + len(extra), extra + content
            content = struct.pack(f"{order}I", place)
        return tag, kind, len(numbers), content.ljust(4, b"\0")

    strips = channels if planes else 1
    size = len(data) // strips
    kinds = {"u": 1, "i": 2, "f": 3}
    tags = [
        *(longs(256, 3, [width]), longs(257, 3, [height]), longs(258, 3, [8 * values.dtype.itemsize] * channels)),
        *(longs(259, 3, [1]), longs(262, 3, [photometric]), longs(273, 4, [8 + size * i for i in range(strips)])),
        *(longs(277, 3, [channels]), longs(278, 3, [height]), longs(279, 4, [size] * strips)),
        *(longs(284, 3, [2 if planes else 1]), longs(339, 3, [kinds[values.dtype.kind]] * channels)),
        *((tag, *content) for tag, content in (more or {}).items()),
    ]
    entries = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in sorted(tags))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", after + len(extra))
    return start + data + extra + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


def segment(marker: int, content: bytes) -> bytes:
    """Returns a segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
