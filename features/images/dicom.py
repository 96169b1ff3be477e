"""DICOM files as images: stored numbers rescaled, seen through the window that the file names, frames as pages.

pydicom reads them, an extra of this project. Only the elements that say how pixels are to be shown are asked for, and
what goes wrong is said in words of our own: pydicom's may quote what a file says of a patient.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

SUFFIXES = (".dcm", ".dicom")
HEAD = 132
"""Bytes of a file's start that tell whether it is DICOM."""
CAN_READ = find_spec("pydicom") is not None
REMEDY = "DICOM is read once pydicom is there: pip install 'bottleneck-search[dicom]'"
_MAGIC = b"DICM"
_TIFFS = (b"II*\0", b"MM\0*")
_FIRST_GROUPS = (b"\x02\0", b"\x08\0", b"\0\x08")
_GREYS, _COLOURS = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(
        f"{kind}{colour}PaletteColorLookupTable{what}"
        for kind, what in (("", "Descriptor"), ("", "Data"), ("Segmented", "Data"))
        for colour in ("Red", "Green", "Blue")
    ),
)
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_DECODERS = {
    "gdcm": "python-gdcm",
    "libjpeg": "pylibjpeg pylibjpeg-libjpeg",
    "openjpeg": "pylibjpeg pylibjpeg-openjpeg",
}
"""What decodes compressed pixels beside Pillow: packages to install, by the module that they bring."""
_LARGEST_WHOLE = 2**31

# Whether a file can be used is decided here, not by a warning about one of its values; process-wide as for Pillow's.
warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")


class DicomError(Exception):
    """A DICOM file that cannot be shown; the message quotes nothing of it."""


@dataclass(frozen=True)
class _Shown:
    """How a frame's numbers become an image.

    Attributes:
        mode: As Pillow names it: ``L``, ``RGB``, or ``I`` and ``F`` for numbers that are still to be scaled.
        modality: The dataset that says how stored numbers are rescaled, if one does.
        window: The dataset that says which of them are black and white, if one does.
    """

    mode: str
    modality: Any = None
    window: Any = None


def is_dicom(start: bytes) -> bool:
    """Whether a file says that it is DICOM; one that is a TIFF as well is one of these only where no DICOM is read.

    Args:
        start: Its first ``HEAD`` bytes.
    """
    return start[HEAD - len(_MAGIC) : HEAD] == _MAGIC and (CAN_READ or not start.startswith(_TIFFS))


def may_be_dicom(start: bytes) -> bool:
    """Whether a file that is nothing else may be DICOM of an older kind, without a preamble."""
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return len(start) == HEAD and start.startswith(_FIRST_GROUPS) and (explicit or start[6:8] == b"\0\0")


class DicomImage(ImageFile.ImageFile):
    """A DICOM file, opened; its frames are loaded one at a time.

    Modes are ``L`` and ``RGB`` for what is ready to be seen. ``I`` and ``F`` are greys without a window of their own:
    rescaled numbers, of which ``inverted`` says whether the least is white.

    Raises:
        DicomError: It holds no image, one of a kind that is not read, or is damaged.
    """

    format = "DICOM"
    format_description = "DICOM"

    def _open(self) -> None:
        if not CAN_READ:
            raise DicomError(REMEDY)
        try:
            self._header = _read_header(self.fp)
            if not all(_whole(self._header, name) for name in ("Rows", "Columns")):
                raise DicomError("a DICOM file without an image")
            self._size = (_whole(self._header, "Columns"), _whole(self._header, "Rows"))
            self.n_frames = _frame_count(self._header, _length(self.fp))
            self.is_animated = self.n_frames > 1
            self.seek(0)
        except (DicomError, MemoryError, OSError):
            raise
        except Exception as error:  # pydicom raises whatever a damaged file makes it stumble over
            raise DicomError("a damaged DICOM file") from error

    def seek(self, frame: int) -> None:
        """Goes to a frame.

        Raises:
            EOFError: There is no such frame.
        """
        if not 0 <= frame < self.n_frames:
            raise EOFError
        self._frame, self._loaded = frame, False
        self._shown = _shown(self._header, frame)
        self._mode = self._shown.mode

    def tell(self) -> int:
        """Returns which frame this is."""
        return self._frame

    @property
    def inverted(self) -> bool:
        """Whether the least number is white."""
        return bool(self._header.PhotometricInterpretation == "MONOCHROME1")

    @property
    def has_window(self) -> bool:
        """Whether the file says what is black and what is white."""
        return self._shown.window is not None

    @property
    def bits(self) -> int | None:
        """How many bits of its numbers count, where they are taken as they are stored; else None."""
        return _whole(self._header, "BitsStored") if _is_identity(self._shown.modality) else None

    def load(self) -> Any:
        """Decodes the frame.

        Raises:
            DicomError: It is damaged, or compressed in a way that needs another package, which is named.
        """
        if not self._loaded:
            try:
                values = self._values(_pixels(self.fp, self._header, self._frame))
                self.im = Image.fromarray(values, self._mode if self._mode == "RGB" else None).im
            except (DicomError, MemoryError, OSError):
                raise
            except Exception as error:
                raise DicomError("damaged: its pixels do not fit what the DICOM file says of them") from error
            self._loaded = True
        return Image.Image.load(self)

    def _values(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The stored numbers as those of an image of this mode."""
        header, shown = self._header, self._shown
        if pixels.shape[:2] != self.size[::-1]:
            raise DicomError("damaged: its pixels do not fit what the DICOM file says of them")
        if shown.mode == "RGB":
            return _colours(pixels, header)
        numbers = pixels if _is_identity(shown.modality) else _rescaled(pixels, shown.modality)
        if shown.mode == "L":
            greys = _windowed(numbers, shown.window) if self.has_window else _few_bits(numbers, self.bits or 8)
            return 255 - greys if self.inverted else greys
        return numbers.astype(np.int32 if shown.mode == "I" else np.float32)


def patient_id(file: Any) -> str:
    """Returns whose image it is, as the file says it, without the spaces around; '' where it does not say.

    Args:
        file: Open, seekable.

    Raises:
        Exception: Whatever pydicom raises.
    """
    from pydicom import dcmread  # noqa: PLC0415

    file.seek(0)
    header = dcmread(file, stop_before_pixels=True, force=True, specific_tags=["PatientID"])
    return str(header.get("PatientID") or "").strip(" \0")


def _read_header(file: Any) -> Any:
    from pydicom import dcmread  # noqa: PLC0415  an extra

    file.seek(0)
    return dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))


def _length(file: Any) -> int:
    return int(file.seek(0, io.SEEK_END))


def _whole(header: Any, name: str) -> int:
    """A number that counts something; 0 where there is none."""
    value = header.get(name)
    return int(value) if isinstance(value, int) and value > 0 else 0


def _frame_count(header: Any, length: int) -> int:
    """How many frames there are: not more than the file has room for, whatever it says."""
    told = max(1, int(header.get("NumberOfFrames") or 1))
    if told == 1:
        return 1
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and (syntax.is_encapsulated or syntax.is_deflated):
        return max(1, min(told, length // 8))
    samples = _whole(header, "SamplesPerPixel") or 1
    bits = _whole(header, "Rows") * _whole(header, "Columns") * samples * (_whole(header, "BitsAllocated") or 8)
    return max(1, min(told, length * 8 // max(1, bits)))


def _shown(header: Any, frame: int) -> _Shown:
    kind = header.get("PhotometricInterpretation")
    if kind == _PALETTE or (kind in _COLOURS and _whole(header, "SamplesPerPixel") == 3):
        return _Shown("RGB")
    if kind not in _GREYS or _whole(header, "SamplesPerPixel") != 1:
        raise DicomError("a DICOM image whose colours are of a kind that is not read")
    modality = next((one for one in _groups(header, frame, "PixelValueTransformationSequence") if _rescales(one)), None)
    window = next((one for one in _groups(header, frame, "FrameVOILUTSequence") if _has_window(one)), None)
    if window is not None:
        return _Shown("L", modality, window)
    bits, signed = _whole(header, "BitsStored"), header.get("PixelRepresentation") == 1
    if _is_identity(modality) and 0 < bits <= 8 and not signed:
        return _Shown("L", modality)
    return _Shown("I" if _are_whole(modality, bits) else "F", modality)


def _groups(header: Any, frame: int, name: str) -> Iterator[Any]:
    """The datasets that may say something of a frame: of itself, of all frames, of the file."""
    for sequence, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        items = header.get(sequence) or []
        inner = items[place].get(name) if place < len(items) else None
        if inner:
            yield inner[0]
    yield header


def _rescales(dataset: Any) -> bool:
    return bool(dataset.get("ModalityLUTSequence")) or _number(dataset, "RescaleSlope") is not None


def _has_window(dataset: Any) -> bool:
    """Whether there is a window, or a table, that can be applied; a width of nothing is none."""
    if dataset.get("VOILUTSequence"):
        return True
    centre, width = _number(dataset, "WindowCenter"), _number(dataset, "WindowWidth")
    return centre is not None and width is not None and width >= (1 if _function(dataset) == "LINEAR" else 1e-9)


def _function(dataset: Any) -> str:
    told = str(dataset.get("VOILUTFunction") or "").upper()
    return told if told in _FUNCTIONS else "LINEAR"


def _number(dataset: Any, name: str) -> float | None:
    """A number, of several the first; None where there is none."""
    value = dataset.get(name)
    values = [value] if isinstance(value, str | int | float) else list(value or [])
    try:
        number = float(values[0])
    except (IndexError, TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _is_identity(modality: Any) -> bool:
    """Whether stored numbers are taken as they are."""
    if modality is None:
        return True
    slope, intercept = _number(modality, "RescaleSlope"), _number(modality, "RescaleIntercept")
    return not modality.get("ModalityLUTSequence") and (slope, intercept or 0.0) == (1.0, 0.0)


def _are_whole(modality: Any, bits: int) -> bool:
    """Whether rescaled numbers are whole ones that fit 32 bits."""
    if not 0 < bits <= 32:  # of floating-point pixels none are stored
        return False
    if modality is not None and modality.get("ModalityLUTSequence"):
        return True
    slope, intercept = (1.0, 0.0) if modality is None else _line(modality)
    return slope.is_integer() and intercept.is_integer() and 2**bits * abs(slope) + abs(intercept) <= _LARGEST_WHOLE


def _line(modality: Any) -> tuple[float, float]:
    slope, intercept = _number(modality, "RescaleSlope"), _number(modality, "RescaleIntercept")
    return 1.0 if slope is None else slope, intercept or 0.0


def _rescaled(pixels: npt.NDArray[Any], modality: Any) -> npt.NDArray[Any]:
    if modality.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut  # noqa: PLC0415

        return np.asarray(apply_modality_lut(pixels, modality))
    slope, intercept = _line(modality)
    return pixels * slope + intercept


def _windowed(numbers: npt.NDArray[Any], window: Any) -> npt.NDArray[np.uint8]:
    """Greys, as pydicom's window or table gives them."""
    from pydicom.dataset import Dataset  # noqa: PLC0415
    from pydicom.pixels import apply_voi, apply_windowing  # noqa: PLC0415

    if window.get("VOILUTSequence"):
        bits = int(window.VOILUTSequence[0].LUTDescriptor[2])
        values = apply_voi(np.rint(numbers).astype(np.int64), window) * (255 / (2**bits - 1))
    else:
        told: Any = Dataset()  # a window alone, of numbers that would be shown as 8 bits: so 0 is black, and 255 white
        told.PhotometricInterpretation, told.BitsStored, told.PixelRepresentation = "MONOCHROME2", 8, 0
        told.WindowCenter, told.WindowWidth = _number(window, "WindowCenter"), _number(window, "WindowWidth")
        told.VOILUTFunction = _function(window)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a width of 1, and far outside
            values = apply_windowing(numbers, told)
    greys: npt.NDArray[np.uint8] = np.rint(np.clip(np.nan_to_num(values), 0, 255)).astype(np.uint8)
    return greys


def _few_bits(numbers: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Stored numbers of up to 8 bits: the largest that these allow is white."""
    greys: npt.NDArray[np.uint8] = np.rint(np.minimum(numbers, 2**bits - 1) * (255 / (2**bits - 1))).astype(np.uint8)
    return greys


def _colours(pixels: npt.NDArray[Any], header: Any) -> npt.NDArray[np.uint8]:
    """(height, width, 3) of whatever number of bits as 8 bits."""
    bits = _whole(header, "BitsStored")
    if header.PhotometricInterpretation == _PALETTE:
        from pydicom.pixels import apply_color_lut  # noqa: PLC0415

        pixels = apply_color_lut(pixels, header)[..., :3]
        bits = 8 * pixels.dtype.itemsize
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DicomError("damaged: its pixels do not fit what the DICOM file says of them")
    shifted: npt.NDArray[np.uint8] = (pixels >> max(0, bits - 8)).astype(np.uint8)
    return np.ascontiguousarray(shifted)


def _pixels(file: IO[bytes] | None, header: Any, frame: int) -> npt.NDArray[Any]:
    """The stored numbers of a frame; colours as RGB.

    Raises:
        DicomError: There are none, they are damaged, or nothing that is installed decodes them.
    """
    from pydicom import dcmread  # noqa: PLC0415
    from pydicom.pixels import get_decoder, pixel_array  # noqa: PLC0415
    from pydicom.uid import UID  # noqa: PLC0415

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
    from pydicom import uid  # noqa: PLC0415

    implicit, little = header.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _named(syntax: Any) -> str:
    """The name of a transfer syntax that the standard has; of another nothing, since a file may say anything."""
    return f" ({syntax.name})" if syntax.name != str(syntax) else ""


def _remedy(syntax: Any) -> str:
    """What to install for a transfer syntax that was not decoded; '' for nothing that would help."""
    from pydicom import uid  # noqa: PLC0415

    if syntax in (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K):
        module = "openjpeg"
    elif syntax == uid.JPEGExtended12Bit:
        module = "libjpeg"
    elif syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes, *uid.JPEG2000TransferSyntaxes):
        module = "gdcm"
    else:
        return ""
    return f"pip install {_DECODERS[module]}" if find_spec(module) is None else ""
