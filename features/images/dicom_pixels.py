"""The stored numbers of a DICOM file's frames, out of whatever they are kept and compressed in."""

from __future__ import annotations

import struct
import zlib
from importlib.util import find_spec
from typing import IO, Any

import numpy as np
import numpy.typing as npt

HEAD = 132
"""Bytes of a file's start that tell whether it is DICOM."""
MAGIC = b"DICM"
DO_NOT_FIT = "damaged: its pixels do not fit what the DICOM file says of them"
_DECODERS = {
    "gdcm": "python-gdcm",
    "libjpeg": "pylibjpeg pylibjpeg-libjpeg",
    "openjpeg": "pylibjpeg pylibjpeg-openjpeg",
}
"""What decodes compressed pixels beside Pillow: packages to install, by the module that they bring."""
_DEFLATED, _META, _INFLATED = b"1.2.840.10008.1.2.1.99", 4096, 2**30
"""Of a file that is compressed as a whole: the name of that, where it stands, and the most that it may be unpacked."""


class DicomError(Exception):
    """A DICOM file that cannot be shown; the message quotes nothing of it."""


def whole_number(header: Any, name: str) -> int:
    """Returns a number that counts something; 0 where a file does not say it."""
    value = header.get(name)
    return int(value) if isinstance(value, int) and value > 0 else 0


def check_inflated(file: Any) -> None:
    """Refuses a bomb: pydicom unpacks a file that is compressed as a whole before it looks at anything.

    Raises:
        DicomError: It is one.
    """
    file.seek(0)
    start = file.read(_META)
    if start[HEAD - len(MAGIC) : HEAD] != MAGIC or _DEFLATED not in start:
        return
    file.seek(HEAD + 12 + struct.unpack_from("<L", start, HEAD + 8)[0])
    unpacker, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while packed := unpacker.unconsumed_tail or file.read(2**16):
        unpacked += len(unpacker.decompress(packed, 2**20))
        if unpacked > _INFLATED:
            raise DicomError("a deflated DICOM file of more than 1 GiB (decompression bomb?)")


def pixels_of(file: IO[bytes] | None, header: Any, frame: int) -> npt.NDArray[Any]:
    """Returns the stored numbers of a frame, (height, width); colours as RGB, (height, width, 3).

    Args:
        file: Open, seekable.
        header: What it says.
        frame: From 0.

    Raises:
        DicomError: There are none, they are damaged, or nothing that is installed decodes them.
    """
    from pydicom import dcmread
    from pydicom.pixels import get_decoder, pixel_array
    from pydicom.uid import UID

    assert file is not None
    told = header.file_meta.get("TransferSyntaxUID")
    syntax = UID(_native(header)) if told is None else told
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise DicomError(f"its pixels are compressed in a way that is not read{_named(syntax)}") from error
    if not decoder.is_available:
        remedy = _remedy(syntax) or "nothing that is installed decodes them"
        raise DicomError(f"its pixels are compressed{_named(syntax)}: {remedy}")
    try:
        file.seek(0)
        if told is not None and not syntax.is_deflated:
            return np.asarray(pixel_array(file, index=frame))
        whole = dcmread(file, force=True)
        whole.file_meta.TransferSyntaxUID = syntax
        return np.asarray(pixel_array(whole, index=frame))
    except (MemoryError, OSError):
        raise
    except AttributeError as error:
        raise DicomError("a DICOM file without an image, or a damaged one") from error
    except Exception as error:
        if remedy := _remedy(syntax):
            told = f"damaged, or compressed{_named(syntax)} in a way that needs another decoder: {remedy}"
            raise DicomError(told) from error
        raise DicomError("damaged: its pixels are cut short, or are not what the DICOM file says") from error


def _native(header: Any) -> Any:
    """The transfer syntax of a file that names none: as it could be read."""
    from pydicom import uid

    implicit, little = header.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _named(syntax: Any) -> str:
    """The name of a transfer syntax that the standard has; of another nothing, since a file may say anything."""
    return f" ({syntax.name})" if syntax.name != str(syntax) else ""


def _remedy(syntax: Any) -> str:
    """What to install for a transfer syntax that was not decoded; '' for nothing that would help."""
    from pydicom import uid

    if syntax in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K):
        module = "openjpeg"
    elif syntax == uid.JPEGExtended12Bit:
        module = "libjpeg"
    elif syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes, *uid.JPEG2000TransferSyntaxes):
        module = "gdcm"
    else:
        return ""
    return f"pip install {_DECODERS[module]}" if find_spec(module) is None else ""
