"""Attributes and datasets of a file from elsewhere, each checked for its type and size before it is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from features.runtime.errors import InputError
from features.runtime.json_files import parse_json
from features.runtime.text import shortened

Value = TypeVar("Value")
MOST_COMPRESSED = 1100
"""Bytes that one byte of the file can stand for: deflate, the usual filter, makes 1,032 of one at most."""


def shown(value: object) -> str:
    """Returns a value as a message shows it: not too long."""
    return shortened(repr(value), 80)


class Attributes:
    """The attributes of an open file or of an object in it.

    Args:
        path: The file, for messages.
        node: The file, or a group or dataset in it.
    """

    def __init__(self, path: Path, node: Any) -> None:
        self._path, self._node = path, node
        self._limit = path.stat().st_size

    def __contains__(self, name: str) -> bool:
        return name in self._node.attrs

    def refusal(self, name: str, expected: str, found: object) -> InputError:
        """Returns what to raise where an attribute is not what it has to be."""
        return InputError(self._path, field=name, expected=expected, found=found)

    def value(self, name: str) -> Any:
        """Returns an attribute: text, a number or a truth value, or an array of one of these; not larger than the file.

        Raises:
            InputError: It is not there, is of another type, or too large.
        """
        expected = "an attribute of that name"
        if name not in self._node.attrs:
            raise self.refusal(name, expected, "none")
        try:
            attribute = h5py.h5a.open(self._node.id, name.encode())
            kind, size = attribute.dtype, math.prod(attribute.shape) * attribute.dtype.itemsize
            if h5py.check_string_dtype(kind) is None and kind.kind not in "biuf":
                raise self.refusal(name, expected, f"{kind}")
            if size > self._limit:
                raise self.refusal(name, expected, f"{size} bytes")
            return self._node.attrs[name]
        except InputError:
            raise
        except Exception as error:  # h5py raises whatever a damaged type or value makes it stumble over
            raise self.refusal(name, expected, f"a damaged one ({error})") from error

    def text(self, name: str) -> str:
        """Returns an attribute that must be one text.

        Raises:
            InputError: It is not there, or is none.
        """
        value = self.value(name)
        if not isinstance(value, str | bytes) or not is_text(value):
            raise self.refusal(name, "a text", shown(value))
        return value.decode() if isinstance(value, bytes) else value

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns an attribute that must be a list of texts.

        Raises:
            InputError: It is not there, or is none.
        """
        value = np.asarray(self.value(name))
        if value.ndim != 1 or not all(isinstance(text, str) and is_text(text) for text in value):
            raise self.refusal(name, "texts", shown(value))
        return tuple(value.tolist())

    def whole(self, name: str, *, least: int | None = None) -> int:
        """Returns an attribute that must be one whole number, of at least ``least``.

        Raises:
            InputError: It is not there, or is none.
        """
        value = self.value(name)
        if not isinstance(value, np.integer) or (least is not None and value < least):
            expected = "a whole number" + ("" if least is None else f" of at least {least}")
            raise self.refusal(name, expected, shown(value))
        return int(value)

    def number(self, name: str, *, or_nan: bool = False) -> float:
        """Returns an attribute that must be one finite number, or with ``or_nan`` NaN.

        Raises:
            InputError: It is not there, or is none.
        """
        value = self.value(name)
        whole = isinstance(value, np.integer | np.floating)
        if not whole or not (math.isfinite(value) or (or_nan and math.isnan(value))):
            raise self.refusal(name, "a number", shown(value))
        return float(value)

    def flag(self, name: str) -> bool:
        """Returns an attribute that must be true or false.

        Raises:
            InputError: It is not there, or is neither.
        """
        value = self.value(name)
        if not isinstance(value, np.bool_):
            raise self.refusal(name, "true or false", shown(value))
        return bool(value)

    def json_object(self, name: str, made: Callable[[dict[str, Any]], Value]) -> Value:
        """Returns what is made of an attribute that must be a JSON object.

        Args:
            name: Of the attribute.
            made: Makes it, and raises TypeError or ValueError where the object is another.

        Raises:
            InputError: It is not there, is no such JSON, or ``made`` refused it.
        """
        text = self.text(name)
        try:
            data = parse_json(text)
            if not isinstance(data, dict):
                raise ValueError(f"found {shown(data)}")
            return made(data)
        except (ValueError, TypeError, OverflowError) as error:
            raise self.refusal(name, "a JSON object that fits", f"another ({error})") from error


def is_text(value: Any) -> bool:
    """Whether a value is text that can be printed and written: h5py hands on what is no UTF-8 as surrogates."""
    try:
        return bool(value.decode() if isinstance(value, bytes) else value.encode()) or not value
    except (UnicodeError, AttributeError):
        return False


def inside(path: Path, file: Any, name: str, *, expected: str = "an object in the file itself") -> Any:
    """Follows a path of hard links: others may lead into another file, or back to themselves.

    Raises:
        InputError: There is no such object, or another link leads to it.
    """
    node = file
    for part in name.split("/"):
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) and part else None
        if not isinstance(link, h5py.HardLink):
            found = "none" if link is None else "a link"
            raise InputError(path, field=shortened(name, 120), expected=expected, found=found)
        node = node[part]
    return node


def inner_dataset(path: Path, file: Any, name: str, *, expected: str = "a dataset in the file itself") -> Any:
    """Returns a dataset whose values lie in this file, and are not more than the file can hold.

    Raises:
        InputError: It is something else; it is named.
    """
    dataset = inside(path, file, name, expected=expected)
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise InputError(path, field=shortened(name, 120), expected=expected, found="another object")
    size = math.prod(dataset.shape or (0,)) * dataset.dtype.itemsize
    limit = path.stat().st_size
    pieces = 1
    if dataset.chunks:
        pieces = math.prod(-(-side // step) for side, step in zip(dataset.shape, dataset.chunks, strict=True))
        limit = MOST_COMPRESSED * dataset.id.get_storage_size()
        size = max(size, pieces * math.prod(dataset.chunks) * dataset.dtype.itemsize)
    if size > limit or pieces > max(1, path.stat().st_size // 8):
        found = f"{size} bytes in {pieces} pieces" if dataset.chunks else f"{size} bytes"
        expected = f"values within the file's {limit} bytes"
        raise InputError(path, field=shortened(name, 120), expected=expected, found=found)
    return dataset
