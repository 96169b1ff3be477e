"""Features that were made elsewhere, as arrays: checked, and written to a store.

Whatever made them (timm, CLIP, DINOv2, another program), they are an array ``X`` with a row for each image, vectors or
maps, and labels ``y``. Vectors are maps of 1 x 1. They are read twice: once to check them, so that nothing is written
of what does not fit, and for their hash, which tells the store from another one of the same images; then to write them.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from features.runtime.arithmetic import with_default_errstate
from features.runtime.errors import InputError
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import utc_text
from features.store.array_files import FileArray, array_in, is_npz, keys_of
from features.store.class_names import split_names
from features.store.given import (
    Given,
    HeldArray,
    class_names,
    count_rows,
    labelled,
    part_names,
    path_names,
    patient_names,
)
from features.store.limits import rows_in_batch, why_too_large
from features.store.schema import DTYPES, RowState, StoreHeader
from features.store.source import CHUNK_BYTES
from features.store.writer import StoreWriter, require_place

FEATURES, LABELS = "X", "y"
OPTIONAL = ("paths", "patients", "parts", "classes")
"""Arrays beside X and y that an ``.npz`` may hold."""
BATCH = 100


@dataclass(frozen=True)
class Arrays:
    """Features and what is known of each row, checked but for the features' values.

    Attributes:
        features: (rows, channels) or (rows, height, width, channels), of float16, float32 or float64.
        labels: Class index of each row.
        classes: Class names, each with a row at least.
        paths: A name of each row, all different.
        patients: Patient of each row, '' where unknown.
        created: When the file that they came from was written, ISO 8601, UTC; '' where there is none.
        parts: Part of each row; empty where none are given.
    """

    features: Given
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    patients: tuple[str, ...]
    created: str = ""
    parts: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        features: Given,
        labels: Given,
        known: Mapping[str, Given],
        *,
        created: str = "",
    ) -> Arrays:
        """Checks all that describes the rows; reads no features.

        Args:
            features: (rows, channels) or (rows, height, width, channels).
            labels: (rows,) class indices from 0, or class names.
            known: ``classes``, names in label order, else those of ``labels``, sorted, or ``class-0`` and so on;
                ``paths``, (rows,) names of the rows, else ``row-0`` and so on; ``patients``, (rows,) texts or whole
                numbers, else unknown; ``parts``, (rows,) ``train``, ``validation`` or ``test``, or what they are often
                called, '' for none.
            created: See the attribute.

        Raises:
            InputError: Something does not fit; the array is named.
        """
        rows = count_rows(features)
        classes, paths, patients, parts = (known.get(name) for name in ("classes", "paths", "patients", "parts"))
        indices, names = labelled(labels, rows, None if classes is None else class_names(classes))
        return cls(
            features,
            indices,
            names,
            tuple(f"row-{row}" for row in range(rows)) if paths is None else path_names(paths, rows),
            ("",) * rows if patients is None else patient_names(patients, rows),
            created,
            () if parts is None else part_names(parts, rows),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of a row."""
        height, width, channels = (1, 1, *self.features.shape[1:])[-3:]
        return height, width, channels

    @property
    def dtype(self) -> str:
        """What a store keeps them as unless it is told: the dtype that loses nothing, or float32 of float64."""
        return "float16" if self.features.dtype.itemsize == 2 else "float32"

    def pieces(self, dtype: str) -> Iterator[tuple[range, npt.NDArray[Any]]]:
        """Yields (rows, features (rows, height, width, channels) in ``dtype``), in bounded memory.

        Raises:
            InputError: A value is not finite or too large for ``dtype``, or a row holds zeros only.
        """
        step = max(1, CHUNK_BYTES // (self.features.dtype.itemsize * math.prod(self.feature_shape)))
        start = 0
        for block in self.features.blocks(step):
            flat = block.reshape(len(block), -1)
            self._check(~np.isfinite(flat).all(axis=1), start, "finite values", "NaN or infinity")
            with np.errstate(over="ignore"):
                cast = np.ascontiguousarray(flat.astype(dtype))
            expected, hint = why_too_large(dtype)
            self._check(~np.isfinite(cast).all(axis=1), start, expected, "larger ones", hint)
            self._check(~cast.any(axis=1), start, f"features in every row, as {dtype}", "zeros only", "leave it out")
            yield range(start, start + len(block)), cast.reshape(len(block), *self.feature_shape)
            start += len(block)

    def _check(self, wrong: Any, start: int, expected: str, found: str, hint: str | None = None) -> None:
        if wrong.any():
            raise self.features.refusal(expected, f"{found} in row {start + int(wrong.argmax())}", hint)

    def header(self, digest: str, *, dtype: str, batch_size: int) -> StoreHeader:
        """Returns the header of the store that they become: of a backbone nothing is known."""
        return StoreHeader(
            classes=self.classes,
            paths=self.paths,
            sizes=(0,) * len(self),
            labels=self.labels,
            patients=self.patients,
            parts=self.parts,
            feature_shape=self.feature_shape,
            dtype=dtype,
            batch_size=batch_size,
            created=self.created,
            versions={"h5py": h5py.__version__, "numpy": np.__version__},
            arrays_sha256=digest,
        )


@dataclass(frozen=True)
class ArrayFiles:
    """The files that arrays come in.

    Attributes:
        source: An ``.npz`` with ``X``, ``y`` and perhaps those of ``OPTIONAL``; or X as an ``.npy``.
        labels: y as an ``.npy``, beside an ``.npy`` only; so are the next two, and the parts.
        paths: A name of each row.
        patients: Patient of each row.
        classes: Class names in label order, joined by commas.
        parts: Part of each row.
    """

    source: Path
    labels: Path | None = None
    paths: Path | None = None
    patients: Path | None = None
    classes: str | None = None
    parts: Path | None = None

    def read(self) -> Arrays:
        """Reads and checks all but the features' values.

        Raises:
            InputError: A file is missing, damaged or does not fit; file and array are named.
        """
        beside = {"labels": self.labels, "paths": self.paths, "patients": self.patients, "parts": self.parts}
        given: dict[str, Given]
        if is_npz(self.source):
            for name, path in beside.items():
                if path is not None:
                    raise InputError(f"--{name}", expected=f"none beside {self.source}, which has its own", found=path)
            keys = keys_of(self.source)
            given = {key: array_in(self.source, key) for key in (FEATURES, LABELS, *OPTIONAL) if key in keys}
            for key in (FEATURES, LABELS):
                given[key] = given[key] if key in given else array_in(self.source, key)  # which says what there is
        else:
            if self.labels is None:
                raise InputError("--labels", expected=f"the labels of {self.source}, as .npy", found="none")
            given = {FEATURES: array_in(self.source), LABELS: _alone(self.labels)}
            given |= {name: _alone(path) for name, path in beside.items() if path is not None and name in OPTIONAL}
        if self.classes is not None:
            if "classes" in given:
                raise InputError("--classes", expected=f"none beside those in {self.source}", found=self.classes)
            given["classes"] = HeldArray("--classes", split_names(self.classes))
        features, labels = given.pop(FEATURES), given.pop(LABELS)
        return Arrays.of(features, labels, given, created=utc_text(self.source.stat().st_mtime))

    def left_out(self) -> tuple[str, ...]:
        """Returns the names of the arrays in an ``.npz`` that a store has no use for."""
        if not is_npz(self.source):
            return ()
        return tuple(key for key in keys_of(self.source) if key not in (FEATURES, LABELS, *OPTIONAL))


def _dtype_named(given: npt.DTypeLike) -> str:
    """The name of a dtype, which an array's own is equal to but is not."""
    name = given
    if not isinstance(given, str):
        with suppress(TypeError, ValueError):
            name = np.dtype(given).name
    if not (isinstance(name, str) and name in DTYPES):
        raise InputError("dtype", expected=" or ".join(DTYPES), found=given)
    return name


def _alone(path: Path) -> FileArray:
    if is_npz(path):
        raise InputError(path, expected="an .npy, one array", found="an .npz")
    return array_in(path)


@with_default_errstate
def arrays_to_store(
    arrays: Arrays,
    destination: str | os.PathLike[str],
    *,
    dtype: npt.DTypeLike | None = None,
    batch_size: int | None = None,
    on_progress: OnProgress = unwatched,
) -> None:
    """Writes arrays to a store; goes on with an unfinished one of the same arrays, and leaves a finished one as it is.

    Args:
        arrays: Features and what is known of them.
        destination: The store; absent, or made of these very arrays.
        dtype: float16 or float32, by name or as NumPy's; by default what loses nothing, or float32 of float64.
        batch_size: Rows in a batch of the store.
        on_progress: Told of the progress; a row counts half as it is checked, and half as it is written.

    Raises:
        InputError: A value does not fit, an option is wrong, or the destination is another file. A store that was
            not there before is not there then.
        BottleneckError: The disk is full, or another process writes the destination.
    """
    destination = Path(destination)
    kind = arrays.dtype if dtype is None else _dtype_named(dtype)
    rows, in_batch = len(arrays), rows_in_batch(batch_size, otherwise=BATCH)
    require_place(destination)
    digest = hashlib.sha256()
    for piece, features in arrays.pieces(kind):
        digest.update(_bytes_of(features))
        on_progress(piece.stop // 2, rows)
    header = arrays.header(digest.hexdigest(), dtype=kind, batch_size=in_batch)
    with StoreWriter(destination, header) as writer:
        if writer.complete:
            on_progress(rows, rows)
            return
        with writer.filling():  # the arrays may be others by now
            _fill(writer, arrays, on_progress)


def _fill(writer: StoreWriter, arrays: Arrays, on_progress: OnProgress) -> None:
    digest, rows = hashlib.sha256(), len(arrays)
    for piece, features in arrays.pieces(writer.header.dtype):
        digest.update(_bytes_of(features))
        if np.any(writer.done[piece.start : piece.stop] == RowState.PENDING):
            writer.write(piece, features[:, None], np.full(len(piece), RowState.DONE, np.uint8))
        on_progress((rows + piece.stop) // 2, rows)
    if digest.hexdigest() != writer.header.arrays_sha256:
        raise arrays.features.refusal("the values that were checked", "others: it was written to meanwhile")
    writer.finish()


def _bytes_of(features: npt.NDArray[Any]) -> memoryview:
    return features.reshape(-1).view(np.uint8).data
