"""DICOM files as content, made of an array; and those that come with pydicom."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

FOLDER = Path(pydicom.data.__file__).parent / "test_files"
NAME, IDENTITY = "Mustermann^Erika", "0815-4711"
"""Of the patient of every made file."""


def own(name: str) -> Path:
    """Returns a file that comes with pydicom."""
    return FOLDER / f"{name}.dcm"


def dicom(
    pixels: np.ndarray, *, syntax: UID = ExplicitVRLittleEndian, pixel_data: bytes = b"", **elements: Any
) -> bytes:
    """Returns pixels as a file.

    Args:
        pixels: (height, width), (frames, height, width), or (height, width, 3) uint8 or uint16.
        syntax: Transfer syntax that the file names.
        pixel_data: Instead of the pixels' own bytes.
        elements: By their keywords; None leaves one out.
    """
    colours = pixels.ndim == 3 and pixels.shape[2] == 3
    frames = len(pixels) if pixels.ndim == 3 and not colours else 1
    height, width = pixels.shape[-3:-1] if colours else pixels.shape[-2:]
    bits = 8 * pixels.dtype.itemsize
    told = {
        "PatientName": NAME,
        "PatientID": IDENTITY,
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "Modality": "OT",
        "Rows": height,
        "Columns": width,
        "SamplesPerPixel": 3 if colours else 1,
        "PhotometricInterpretation": "RGB" if colours else "MONOCHROME2",
        "PlanarConfiguration": 0 if colours else None,
        "NumberOfFrames": frames if frames > 1 else None,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **elements,
    }
    dataset: Any = Dataset()
    for keyword, value in told.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = pixel_data or pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OB" if syntax.is_encapsulated or bits == 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def sequence(**elements: Any) -> list[Dataset]:
    """Returns a sequence of one item."""
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return [item]
