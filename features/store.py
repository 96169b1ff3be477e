"""The feature store: one HDF5 file, one writer, one reader, the schema (docs/store.md).

Every dataset is contiguous and allocated when the file is made, so rows are read through ``numpy.memmap`` and written
with ``pwrite`` at the dataset's offset: after creation a killed writer can leave no half-written HDF5 metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from features.atomic import disk_error, replacing
from features.contiguous import allocated, declare, write_at
from features.errors import InputError
from features.lock import WriterLock

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
class StoreHeader:
    """Everything about a store that is decided before its first row is written.

    Attributes:
        classes: Class names; a label is an index into them.
        paths: Source file of each row, relative to the image folder, with ``/``.
        sizes: Size in bytes of each source file.
        labels: Class index of each row.
        patients: Patient id of each row, empty where unknown.
        feature_shape: (height, width, channels) of one bottleneck.
        views: Names of the views of each image, in their order in the store.
        backbone: Name in keras.applications, or ``unknown``.
        alpha: Width multiplier of the backbone, where it has one.
        weights: ``imagenet``, ``random:SEED`` or the file's name.
        weights_sha256: Hash of the backbone's weight arrays, empty where unknown.
        image_size: Side in pixels of the square that the backbone is shown; 0 where unknown.
        preprocessing: ``backbone`` or ``unit``; ``unknown`` for stores that were converted.
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
    feature_shape: tuple[int, int, int]
    views: tuple[str, ...] = ("identity",)
    backbone: str = "unknown"
    alpha: float | None = None
    weights: str = "unknown"
    weights_sha256: str = ""
    image_size: int = 0
    preprocessing: str = "unknown"
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
    def fingerprint(self) -> str:
        """Hash over all that decides the features: backbone, weights, preprocessing, size, views, classes, files."""
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
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()

    def check_same(self, path: Path, other: StoreHeader) -> None:
        """Compares this header, of the store at ``path``, with what a command was told.

        Raises:
            InputError: Naming the first field that differs. Versions and ``created`` may differ.
        """
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine == theirs or field.name in ("versions", "created"):
                continue
            expected, found = _shorten(theirs, mine)
            raise InputError(
                path, field=field.name, expected=expected, found=found, hint="choose another store, or remove this one"
            )


def _shorten(told: Any, stored: Any) -> tuple[str, str]:
    """Returns both values for a message; of long lists only the first entry that differs."""
    if isinstance(told, tuple) and isinstance(stored, tuple) and max(len(told), len(stored)) > 8:
        if len(told) != len(stored):
            return f"{len(told)} entries", f"{len(stored)}"
        row = next(i for i, pair in enumerate(zip(told, stored, strict=True)) if pair[0] != pair[1])
        return f"{told[row]!r} in row {row}", repr(stored[row])
    return repr(told), repr(stored)


class FeatureStore:
    """A store opened for reading. Arrays are read-only; features stay on disk until they are touched.

    Attributes:
        path: The file.
        header: What the file says of itself.
        features: (rows, views, height, width, channels), memory-mapped.
        labels: (rows,) int32.
        done: (rows,) uint8, see ``RowState``.
        complete: Whether every row is done or skipped.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens a store.

        Raises:
            InputError: There is no such file, or it is not a store of this schema.
        """
        self.path = Path(path)
        with _open(self.path) as file:
            self.header = _read_header(self.path, file)
            offset = _offset(self.path, file, "features", self.header.shape, self.header.dtype)
            _offset(self.path, file, "done", (len(self.header),), "uint8")
            self.done: npt.NDArray[np.uint8] = file["done"][:]
            self.complete = bool(file.attrs["complete"])
            self.fingerprint: str = str(file.attrs["fingerprint"])
        self.features: npt.NDArray[Any] = np.memmap(
            self.path, mode="r", dtype=self.header.dtype, shape=self.header.shape, offset=offset
        )
        self.labels = np.asarray(self.header.labels, np.int32)
        self.patients = np.asarray(self.header.patients)
        for array in (self.done, self.labels, self.patients):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.header)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.header.classes

    @property
    def usable(self) -> npt.NDArray[np.int64]:
        """Indices of the rows that have features."""
        return np.flatnonzero(self.done == RowState.DONE)

    def require_complete(self) -> None:
        """Refuses a store whose extraction has not ended, and one without a usable row.

        Raises:
            InputError: Saying how many rows are missing.
        """
        pending = int(np.count_nonzero(self.done == RowState.PENDING))
        if pending or not self.complete:
            settled = f"{len(self) - pending} of {len(self)} rows"
            hint = "run the same features.extract again to finish it"
            raise InputError(self.path, field="complete", expected="a finished store", found=settled, hint=hint)
        if not len(self.usable):
            raise InputError(self.path, field="done", expected="at least one usable row", found="none")


class StoreWriter:
    """Makes a store, or goes on with an unfinished one. Use as a context manager: it holds the writer's lock.

    Features are flushed to disk before ``done`` says that they are there. Every write is one ``pwrite``: an error
    (a full disk, say) surfaces as an exception, where a memory map would end in SIGBUS.
    """

    def __init__(self, path: str | os.PathLike[str], header: StoreHeader) -> None:
        """Takes the lock, then creates the file or checks that the existing one is the same store.

        Raises:
            InputError: The store exists and differs from ``header``; the field is named.
            BottleneckError: Another process is writing it, or the disk is too small.
        """
        self.path = Path(path)
        self.header = header
        self._lock = WriterLock(self.path)
        self._descriptor = -1
        try:
            if self.path.exists():
                self._check_existing()
            else:
                _create(self.path, header)
            self._open()
        except BaseException:
            self.close()
            raise

    def _check_existing(self) -> None:
        with _open(self.path) as file:
            stored = _read_header(self.path, file)
        stored.check_same(self.path, self.header)

    def _open(self) -> None:
        with _open(self.path) as file:
            self._features_at = _offset(self.path, file, "features", self.header.shape, self.header.dtype)
            self._done_at = _offset(self.path, file, "done", (len(self.header),), "uint8")
            self.done: npt.NDArray[np.uint8] = file["done"][:]
            self.complete = bool(file.attrs["complete"])
        self._descriptor = os.open(self.path, os.O_RDWR)
        self._row_bytes = int(np.prod(self.header.shape[1:])) * np.dtype(self.header.dtype).itemsize

    def pending(self) -> Iterator[range]:
        """Yields the batches (row ranges, aligned to ``batch_size``) that are not all settled yet."""
        size = self.header.batch_size
        for start in range(0, len(self.header), size):
            rows = range(start, min(start + size, len(self.header)))
            if np.any(self.done[start : rows.stop] == RowState.PENDING):
                yield rows

    def write(self, rows: range, features: npt.NDArray[Any], states: npt.NDArray[np.uint8]) -> None:
        """Writes rows: features, flush, then states, flush.

        Args:
            rows: A batch from ``pending``, or a part of one.
            features: (len(rows), views, height, width, channels) in the store's dtype; rows that are skipped hold 0.
            states: (len(rows),) of DONE or SKIPPED.

        Raises:
            BottleneckError: The disk is full or failed; what was written before stays valid.
        """
        expected = (len(rows), *self.header.shape[1:])
        assert features.shape == expected, f"{features.shape=} {expected=}"
        assert features.dtype == self.header.dtype, f"{features.dtype=}"
        try:
            write_at(self._descriptor, features, self._features_at + rows.start * self._row_bytes)
            os.fdatasync(self._descriptor)
            write_at(self._descriptor, states.astype(np.uint8), self._done_at + rows.start)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.done[rows.start : rows.stop] = states

    def finish(self) -> None:
        """Marks the store complete once every row is settled."""
        assert not np.any(self.done == RowState.PENDING)
        if not self.complete:
            os.fsync(self._descriptor)
            with _open(self.path, "r+") as file:
                file.attrs.modify("complete", np.bool_(True))
            os.fsync(self._descriptor)
            self.complete = True

    def close(self) -> None:
        """Gives the lock back; the store stays as it is, finished or resumable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _create(path: Path, header: StoreHeader) -> None:
    """Makes the whole file, features allocated but empty."""
    paths, patients = _fixed_width(header.paths), _fixed_width(header.patients)
    labels, sizes = np.asarray(header.labels, np.int32), np.asarray(header.sizes, np.int64)
    needed = int(np.prod(header.shape)) * np.dtype(header.dtype).itemsize + len(header)
    needed += sum(array.nbytes for array in (paths, patients, labels, sizes))
    with replacing(path, needed=needed) as temporary, allocated(temporary, needed=needed) as file:
        declare(file, "features", header.shape, header.dtype)
        declare(file, "done", (len(header),), "uint8")
        file.create_dataset("labels", data=labels)
        file.create_dataset("sizes", data=sizes)
        file.create_dataset("paths", data=paths)
        file.create_dataset("patients", data=patients)
        for name, value in _attributes(header).items():
            file.attrs[name] = value


def _fixed_width(texts: tuple[str, ...]) -> npt.NDArray[Any]:
    encoded = [text.encode() for text in texts]
    width = max(1, *(len(text) for text in encoded))
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))


def _attributes(header: StoreHeader) -> dict[str, Any]:
    text = h5py.string_dtype("utf-8")
    return {
        "schema": np.int64(SCHEMA),
        "classes": np.array(header.classes, dtype=text),
        "views": np.array(header.views, dtype=text),
        "backbone": header.backbone,
        "alpha": np.float64(np.nan if header.alpha is None else header.alpha),
        "weights": header.weights,
        "weights_sha256": header.weights_sha256,
        "image_size": np.int64(header.image_size),
        "preprocessing": header.preprocessing,
        "batch_size": np.int64(header.batch_size),
        "created": header.created,
        "versions": json.dumps(header.versions, sort_keys=True),
        "fingerprint": header.fingerprint,
        "complete": np.bool_(False),
    }


def _open(path: Path, mode: str = "r") -> Any:
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


def _read_header(path: Path, file: Any) -> StoreHeader:
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
    return header


def _header_of(file: Any, shape: tuple[int, ...], dtype: str) -> StoreHeader:
    attributes = file.attrs
    alpha = float(attributes.get("alpha", np.nan))
    return StoreHeader(
        classes=tuple(str(name) for name in attributes["classes"]),
        paths=tuple(file["paths"].asstr()[:].tolist()),
        sizes=tuple(file["sizes"][:].tolist()) if "sizes" in file else (0,) * shape[0],
        labels=tuple(file["labels"][:].tolist()),
        patients=tuple(file["patients"].asstr()[:].tolist()),
        feature_shape=(int(shape[2]), int(shape[3]), int(shape[4])),
        views=tuple(str(name) for name in attributes["views"]),
        backbone=str(attributes["backbone"]),
        alpha=None if np.isnan(alpha) else alpha,
        weights=str(attributes["weights"]),
        weights_sha256=str(attributes.get("weights_sha256", "")),
        image_size=int(attributes["image_size"]),
        preprocessing=str(attributes["preprocessing"]),
        dtype=dtype,
        batch_size=int(attributes.get("batch_size", 32)),
        created=str(attributes.get("created", "")),
        versions=json.loads(attributes.get("versions", "{}")),
    )


def _offset(path: Path, file: Any, name: str, shape: tuple[int, ...], dtype: str) -> int:
    """Byte offset of a contiguous dataset, checked against the file's size (a copy may have been cut short)."""
    offset: int | None = file[name].id.get_offset()
    if offset is None or file[name].chunks is not None:
        raise InputError(path, field=name, expected="a contiguous dataset", found="another layout")
    end = offset + int(np.prod(shape)) * np.dtype(dtype).itemsize
    if path.stat().st_size < end:
        raise InputError(path, field=name, expected=f"a file of at least {end} bytes", found=path.stat().st_size)
    return offset
