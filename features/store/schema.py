"""What a store's file holds, and how it is checked before anything in it is believed (docs/store.md)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.store.intensity import GRAMMAR, parse_intensity
from features.store.kind import BY_TYPE, EIGHT_BITS, UNKNOWN, FeatureKind

Rows = npt.NDArray[np.int64]
SCHEMA = 1
SCHEMA_TEXT = f"{SCHEMA} (a feature store)"
DTYPES = ("float16", "float32")
REQUIRED = ("classes", "views", "backbone", "weights", "image_size", "preprocessing", "fingerprint", "complete")
"""Attributes without which a file is no store."""


class RowState(IntEnum):
    """What ``/done`` says of a row."""

    PENDING = 0
    DONE = 1
    SKIPPED = 2
    """The image could not be decoded: the row has no features and is never used."""


@dataclass(frozen=True, kw_only=True)
class StoreHeader(FeatureKind):
    """Everything about a store that is decided before its first row is written, beside the kind of its features.

    Attributes:
        classes: Class names; a label is an index into them.
        paths: Source file of each row, relative to the image folder, with ``/``.
        sizes: Size in bytes of each source file.
        labels: Class index of each row.
        patients: Patient id of each row, empty where unknown.
        pages: ``first`` where a file is a row, ``all`` where one with several pages is a row for each of them.
        views: Names of the views of each image, in their order in the store.
        dtype: ``float16`` or ``float32``.
        batch_size: Rows in a batch: resuming continues at a multiple of it.
        created: Time of the newest source file, ISO 8601, UTC: not of the run, so that equal input gives equal bytes.
        versions: Package versions that made it.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    labels: tuple[int, ...]
    patients: tuple[str, ...]
    pages: str = "first"
    views: tuple[str, ...] = ("identity",)
    dtype: str = "float16"
    batch_size: int = 32
    created: str = ""
    versions: dict[str, str]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Shape of ``/features``: (rows, views, height, width, channels)."""
        return (len(self), len(self.views), *self.feature_shape)

    @property
    def row_values(self) -> int:
        """Numbers of a row, in all of its views."""
        return math.prod(self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, in all of its views."""
        return self.row_values * np.dtype(self.dtype).itemsize

    @property
    def fingerprint(self) -> str:
        """Hash over all that decides the features: backbone, weights, preprocessing, size, views, classes, files.

        What is hashed, and in which order, is part of the format: stores keep the result. The intensity is hashed where
        it is none that a type has, so that others keep the fingerprint that they had before it was recorded.
        """
        content = {
            "schema": SCHEMA,
            "backbone": self.backbone,
            "alpha": self.alpha,
            "weights_sha256": self.weights_sha256,
            "preprocessing": self.preprocessing,
            "image_size": self.image_size,
            "views": self.views,
            "classes": self.classes,
            "dtype": self.dtype,
            "files": list(zip(self.paths, self.sizes, self.labels, strict=True)),
        }
        if self.intensity not in (UNKNOWN, EIGHT_BITS, BY_TYPE):
            content["intensity"] = self.intensity
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def check_same(self, path: Path, other: StoreHeader) -> None:
        """Compares this header, of the store at ``path``, with what a command was told.

        Raises:
            InputError: Naming the first field that differs. Versions and ``created`` may differ.
        """
        # The files first, which say best what store this is; then the kind; last how it is kept.
        turn = {field.name: 1 for field in fields(FeatureKind)} | {"dtype": 2, "batch_size": 2, "pages": -1}
        names = (field.name for field in fields(self) if field.name not in ("versions", "created"))
        for name in sorted(names, key=lambda name: turn.get(name, 0)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine == theirs:
                continue
            expected, found = _shorten(theirs, mine)
            raise InputError(
                path, field=name, expected=expected, found=found, hint="choose another store, or remove this one"
            )


def _shorten(told: Any, stored: Any) -> tuple[str, str]:
    """Returns both values for a message; of long lists only the first entry that differs."""
    if isinstance(told, tuple) and isinstance(stored, tuple) and max(len(told), len(stored)) > 8:
        if len(told) != len(stored):
            return f"{len(told)} entries", f"{len(stored)}"
        row = next(i for i, pair in enumerate(zip(told, stored, strict=True)) if pair[0] != pair[1])
        return f"{told[row]!r} in row {row}", repr(stored[row])
    return repr(told), repr(stored)


def fixed_width(texts: tuple[str, ...]) -> npt.NDArray[Any]:
    """Returns texts as (n,) UTF-8 of one width, so that they lie contiguous in the file."""
    encoded = [text.encode() for text in texts]
    width = max(1, *(len(text) for text in encoded))
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))


def header_attributes(header: StoreHeader) -> dict[str, Any]:
    """Returns the attributes of a store that is not complete yet."""
    text = h5py.string_dtype("utf-8")
    return {
        "schema": np.int64(SCHEMA),
        "classes": np.array(header.classes, dtype=text),
        "views": np.array(header.views, dtype=text),
        "pages": header.pages,
        **header.origin,
        "alpha": np.float64(np.nan if header.alpha is None else header.alpha),
        "image_size": np.int64(header.image_size),
        "batch_size": np.int64(header.batch_size),
        "created": header.created,
        "versions": json.dumps(header.versions, sort_keys=True),
        "fingerprint": header.fingerprint,
        "complete": np.bool_(False),
    }


def open_hdf5(path: Path, mode: str = "r") -> Any:
    """Opens a store's file as an ``h5py.File``.

    Raises:
        InputError: It is missing, cannot be read, or is no HDF5.
    """
    try:
        path.stat()
        # HDF5's own lock would keep readers out while a writer appends rows; ours keeps a second writer out.
        return h5py.File(path, mode, locking=False)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(path, expected="a feature store", found="no such file") from error
    except OSError as error:
        raise InputError(path, expected="a feature store (HDF5)", found=_unreadable(path, error)) from error


def _unreadable(path: Path, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read"
    if path.is_dir():
        return "a folder"
    return "a file cut short (an unfinished copy?)" if "truncated file" in str(error) else "a file that is no HDF5"


def read_header(path: Path, file: Any) -> StoreHeader:
    """Reads and checks what a store says of itself.

    Raises:
        InputError: It is no store of this schema; the field is named.
    """
    try:
        _check_presence(path, file)
        return _checked_header(path, file)
    except (TypeError, ValueError, OSError) as error:  # what h5py and json raise where bytes or types are others
        raise InputError(path, expected="a header that can be read", found=error) from error


def _check_presence(path: Path, file: Any) -> None:
    attributes = file.attrs
    if "schema" not in attributes:
        hint = "features.convert reads the article's layout" if "batches" in file else None
        raise InputError(path, field="schema", expected=SCHEMA_TEXT, found="no such attribute", hint=hint)
    if attributes["schema"] != SCHEMA:
        raise InputError(path, field="schema", expected=SCHEMA_TEXT, found=attributes["schema"])
    for name in ("features", "labels", "done", "paths", "patients"):
        if not isinstance(file.get(name), h5py.Dataset):
            raise InputError(path, field=name, expected="a dataset of that name", found="none")
    for name in REQUIRED:
        if name not in attributes:
            raise InputError(path, field=name, expected="an attribute of that name", found="none")


def _checked_header(path: Path, file: Any) -> StoreHeader:
    shape = file["features"].shape
    if len(shape) != 5:
        raise InputError(path, field="features", expected="5 axes (rows, views, height, width, channels)", found=shape)
    rows, dtype = shape[0], file["features"].dtype.name
    if dtype not in DTYPES:
        raise InputError(path, field="features", expected=" or ".join(DTYPES), found=dtype)
    for name in ("labels", "done", "paths", "patients"):
        if file[name].shape != (rows,):
            raise InputError(path, field=name, expected=f"shape ({rows},)", found=file[name].shape)
    header = _header_of(file, shape, dtype)
    if not all(0 <= label < len(header.classes) for label in header.labels):
        raise InputError(path, field="labels", expected=f"0 to {len(header.classes) - 1}", found="others")
    if len(header.views) != shape[1]:
        raise InputError(path, field="views", expected=f"{shape[1]} names", found=len(header.views))
    check_intensity(path, header)
    return header


def check_intensity(path: Path, kind: FeatureKind) -> None:
    """Refuses an intensity in a file that says no scale.

    Raises:
        InputError: Naming the file and the field.
    """
    try:
        parse_intensity(kind.intensity)
    except InputError as error:
        found = ascii(kind.intensity)[:80]
        raise InputError(path, field="intensity", expected=GRAMMAR, found=found) from error


def _header_of(file: Any, shape: tuple[int, ...], dtype: str) -> StoreHeader:
    attributes = file.attrs
    return StoreHeader(
        classes=tuple(str(name) for name in attributes["classes"]),
        paths=tuple(file["paths"].asstr()[:].tolist()),
        sizes=tuple(file["sizes"][:].tolist()) if "sizes" in file else (0,) * shape[0],
        labels=tuple(file["labels"][:].tolist()),
        patients=tuple(file["patients"].asstr()[:].tolist()),
        feature_shape=(int(shape[2]), int(shape[3]), int(shape[4])),
        pages=str(attributes.get("pages", "first")),
        views=tuple(str(name) for name in attributes["views"]),
        **_origin_of(attributes),
        dtype=dtype,
        batch_size=int(attributes.get("batch_size", 32)),
        created=str(attributes.get("created", "")),
        versions=json.loads(attributes.get("versions", "{}")),
    )


def _origin_of(attributes: Any) -> dict[str, Any]:
    """Where the features come from, each attribute as the type of its default; an alpha of NaN is none."""
    origin: dict[str, Any] = {}
    for field in fields(FeatureKind):
        if field.name == "alpha":
            alpha = float(attributes.get("alpha", np.nan))
            origin["alpha"] = None if np.isnan(alpha) else alpha
        elif field.name != "feature_shape":
            default: Any = field.default
            origin[field.name] = type(default)(attributes.get(field.name, default))
    return origin


def dataset_offset(path: Path, file: Any, name: str, shape: tuple[int, ...], dtype: str) -> int:
    """Byte offset of a contiguous dataset, checked against the file's size (a copy may have been cut short)."""
    offset: int | None = file[name].id.get_offset()
    if offset is None or file[name].chunks is not None:
        raise InputError(path, field=name, expected="a contiguous dataset", found="another layout")
    end = offset + int(np.prod(shape)) * np.dtype(dtype).itemsize
    if path.stat().st_size < end:
        raise InputError(path, field=name, expected=f"a file of at least {end} bytes", found=path.stat().st_size)
    return offset
