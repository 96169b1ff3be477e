"""How the numbers of a DICOM frame become greys or colours: rescaled, seen through a window, turned to RGB."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.images.dicom_pixels import DO_NOT_FIT, DicomError, whole_number

_GREYS, _COLOURS = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_LARGEST_WHOLE = 2**31


@dataclass(frozen=True)
class Shown:
    """How a frame's numbers become an image.

    Attributes:
        mode: As Pillow names it: ``L``, ``RGB``, or ``I`` and ``F`` for numbers that are still to be scaled.
        modality: The dataset that says how stored numbers are rescaled, if one does.
        window: The dataset that says which of them are black and white, if one does.
    """

    mode: str
    modality: Any = None
    window: Any = None


def shown_as(header: Any, frame: int) -> Shown:
    """Returns how a frame becomes an image, by what the file or the frame itself says.

    Raises:
        DicomError: Its colours are of a kind that is not read.
    """
    kind = header.get("PhotometricInterpretation")
    if kind == _PALETTE or (kind in _COLOURS and whole_number(header, "SamplesPerPixel") == 3):
        return Shown("RGB")
    if kind not in _GREYS or whole_number(header, "SamplesPerPixel") != 1:
        raise DicomError("a DICOM image whose colours are of a kind that is not read")
    modality = next((one for one in _groups(header, frame, "PixelValueTransformationSequence") if _rescales(one)), None)
    window = next((one for one in _groups(header, frame, "FrameVOILUTSequence") if _has_window(one)), None)
    if window is not None:
        return Shown("L", modality, window)
    bits, signed = whole_number(header, "BitsStored"), header.get("PixelRepresentation") == 1
    if is_identity(modality) and 0 < bits <= 8 and not signed:
        return Shown("L", modality)
    return Shown("I" if _gives_whole_numbers(modality, bits) else "F", modality)


def values_of(pixels: npt.NDArray[Any], header: Any, shown: Shown) -> npt.NDArray[Any]:
    """Returns the stored numbers of a frame as those of an image of its mode.

    Args:
        pixels: (height, width), or (height, width, 3) for RGB.
        header: What the file says.
        shown: How the frame becomes an image.

    Raises:
        DicomError: The numbers are not what the file says of them.
    """
    if shown.mode == "RGB":
        return _colours(pixels, header)
    numbers = pixels if is_identity(shown.modality) else _rescaled(pixels, shown.modality)
    if shown.mode != "L":
        return numbers.astype(np.int32 if shown.mode == "I" else np.float32)
    if shown.window is not None:
        greys = _windowed(numbers, shown.window)
    else:
        greys = _few_bits(numbers, whole_number(header, "BitsStored"))
    return 255 - greys if header.PhotometricInterpretation == "MONOCHROME1" else greys


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


def is_identity(modality: Any) -> bool:
    """Whether stored numbers are taken as they are."""
    if modality is None:
        return True
    slope, intercept = _number(modality, "RescaleSlope"), _number(modality, "RescaleIntercept")
    return not modality.get("ModalityLUTSequence") and (slope, intercept or 0.0) == (1.0, 0.0)


def _gives_whole_numbers(modality: Any, bits: int) -> bool:
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
        from pydicom.pixels import apply_modality_lut

        return np.asarray(apply_modality_lut(pixels, modality))
    slope, intercept = _line(modality)
    return pixels * slope + intercept


def _windowed(numbers: npt.NDArray[Any], window: Any) -> npt.NDArray[np.uint8]:
    """Greys, as pydicom's window or table gives them."""
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_voi, apply_windowing

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
    bits = whole_number(header, "BitsStored")
    if header.PhotometricInterpretation == _PALETTE:
        from pydicom.pixels import apply_color_lut

        pixels = apply_color_lut(pixels, header)[..., :3]
        bits = 8 * pixels.dtype.itemsize
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DicomError(DO_NOT_FIT)
    shifted: npt.NDArray[np.uint8] = (pixels >> max(0, bits - 8)).astype(np.uint8)
    return np.ascontiguousarray(shifted)
