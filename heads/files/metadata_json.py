"""What a head's file says of itself as JSON, for formats other than HDF5: the same names with the same values.

It is the member ``head.json`` of a .keras file and of a .tflite file (both can be opened as ZIP archives), the file
``assets.extra/head.json`` of a SavedModel, and the entry ``head.json`` of an ONNX file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from features.hdf5.values import shown
from features.runtime.errors import InputError
from features.runtime.json_files import parse_json
from heads.files.metadata import JSON_FIELDS, HeadMetadata

NAME = "head.json"
_KNOWN = ("kind", "schema", *(field.name for field in fields(HeadMetadata)))


def to_json(attributes: dict[str, Any]) -> str:
    """Returns the JSON text that stands for a file's attributes.

    Args:
        attributes: As ``heads.files.metadata.file_attributes`` makes them.
    """
    values = {
        name: value.tolist() if isinstance(value, np.ndarray) else json.loads(value) if name in JSON_FIELDS else value
        for name, value in attributes.items()
    }
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)


@contextmanager
def as_attributes(path: Path, text: str | bytes | None) -> Iterator[Any]:
    """Yields an HDF5 file in memory with the attributes that the JSON text says: what reads heads checks them there.

    Args:
        path: The file that the text is from, for messages.
        text: JSON, from anywhere; None for no attributes.

    Raises:
        InputError: It is no JSON object, or a value cannot be an attribute.
    """
    with h5py.File.in_memory() as file:
        for name, value in ({} if text is None else _parsed(path, text)).items():
            if name not in _KNOWN:
                continue
            try:
                file.attrs[name] = _attribute(value)
            except (TypeError, ValueError, OverflowError, OSError, RuntimeError) as error:
                found = shown(value)
                raise InputError(path, field=f"{NAME}: {name}", expected="a value that fits", found=found) from error
        yield file


def _parsed(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        data = parse_json(text)
        if not isinstance(data, dict):
            raise ValueError(shown(data))
    except ValueError as error:
        raise InputError(path, field=NAME, expected="a JSON object", found=f"something else ({error})") from error
    return data


def _attribute(value: Any) -> Any:
    """The value as HDF5 keeps it: objects as text, lists as arrays of texts or of whole numbers."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        if all(isinstance(one, str) for one in value):
            return np.array(value, dtype=h5py.string_dtype("utf-8"))
        if not all(type(one) is int for one in value):
            raise TypeError("a list of other things")
        return np.array(value, np.int64)
    if not isinstance(value, str | int | float):
        raise TypeError("no text and no number")
    return value
