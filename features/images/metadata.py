"""Image files without what surrounds the pixels: colour profiles, texts, previews, times.

For a file whose pixels Pillow does not give because of these: too large, damaged, of a kind that it does not expect.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

PNG = b"\x89PNG\r\n\x1a\n"
"""What a PNG begins with."""
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0")
"""Texts that may say how an image is turned."""
_SHORT = 1 << 16
"""Bytes of the longest such text that is looked at."""
_JPEG = b"\xff\xd8"
_JPEG_ORIENTATION, _JPEG_ADOBE = 0xE1, 0xEE
_ADOBE_LENGTH = 14
"""Of the segment that says which colours a JPEG has, with its length's own two bytes."""
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_TIFF_ORIENTATION = 274
_TIFF_PIXELS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {332, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532}
)
"""Tags without which the pixels would be others: sizes, layout, compression, palette, colours, alpha."""


def without_metadata(file: BinaryIO) -> Iterator[bytes]:
    """Yields a file's content without metadata: first with its orientation kept, then without that as well.

    Nothing that is left out is read or unpacked, however large it says it is.

    Args:
        file: Open, seekable. Of a PNG, JPEG or TIFF; nothing is yielded for others, and of a TIFF its first page.
    """
    file.seek(0)
    start = file.read(8)
    for orientation in (True, False):
        file.seek(0)
        try:
            if start == PNG:
                yield _png(file, orientation=orientation)
            elif start[:2] == _JPEG:
                yield _jpeg(file, orientation=orientation)
            elif start[:4] in _TIFF:
                yield _tiff(file, _TIFF[start[:4]], _TIFF_PIXELS | ({_TIFF_ORIENTATION} if orientation else set()))
        except struct.error:  # cut short
            return


def png_significant_bits(file: BinaryIO) -> int | None:
    """Returns how many bits of a PNG's numbers count, as its ``sBIT`` says; None where it does not say."""
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind == b"sBIT":
            return max(file.read(min(length, 4)), default=None)
        if kind == b"IDAT":
            return None
        file.seek(length + 4, io.SEEK_CUR)
    return None


def _png(file: BinaryIO, *, orientation: bool) -> bytes:
    content = io.BytesIO()
    content.write(file.read(8))
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind in _PNG_PIXELS or (orientation and kind == b"eXIf"):
            content.write(header + file.read(length + 4))
        elif orientation and kind in _PNG_TEXTS and length < _SHORT:
            text = file.read(length + 4)
            content.write(header + text if text.startswith(_PNG_ORIENTATION) else b"")
        else:
            file.seek(length + 4, io.SEEK_CUR)
        if kind == b"IEND":
            break
    return content.getvalue()


def _jpeg(file: BinaryIO, *, orientation: bool) -> bytes:
    """Leaves out APPn and comments up to the first scan; what says which colours these are stays."""
    content = io.BytesIO()
    content.write(file.read(2))
    while True:
        marker, kind = struct.unpack(">BB", file.read(2))
        if marker != 0xFF or kind == 0xDA:  # a scan: the rest is pixels
            content.write(bytes((marker, kind)) + file.read())
            return content.getvalue()
        if kind == 0xFF:  # padding
            file.seek(-1, io.SEEK_CUR)
            continue
        if kind == 0x01 or 0xD0 <= kind <= 0xD9:  # without content
            content.write(bytes((marker, kind)))
            continue
        (length,) = struct.unpack(">H", file.read(2))
        body = file.read(max(0, length - 2))
        wanted = (kind == _JPEG_ORIENTATION and orientation) or (kind == _JPEG_ADOBE and length >= _ADOBE_LENGTH)
        if wanted or not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            content.write(struct.pack(">BBH", marker, kind, length) + body)


def _tiff(file: BinaryIO, order: str, kept: frozenset[int] | set[int]) -> bytes:
    """Takes entries out of the first directory; all else stays where it is, since the directory points at it."""
    content = bytearray(file.read())
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    entries = [bytes(content[at : at + 12]) for at in range(start + 2, start + 2 + 12 * count, 12)]
    left = [entry for entry in entries if len(entry) == 12 and struct.unpack(f"{order}H", entry[:2])[0] in kept]
    directory = struct.pack(f"{order}H", len(left)) + b"".join(left) + struct.pack(f"{order}I", 0)
    content[start : start + len(directory)] = directory
    return bytes(content)
