"""Arrays in NumPy's own files, ``.npy`` and ``.npz``, read as data: no pickle is ever run, and memory is bounded."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from features.hdf5.door import reading
from features.hdf5.values import MOST_COMPRESSED
from features.runtime.errors import InputError
from features.runtime.files import require_file
from features.runtime.memory import resident_budget
from features.runtime.text import counted, listed, printable

NPZ, NPY = b"PK", b"\x93NUMPY"
"""How the two kinds of files begin."""
EXPECTED = "arrays of NumPy (.npz or .npy)"
OBJECTS = "Python objects, which are not read: they can run code"
_NAMED = 8


@dataclass(frozen=True)
class FileArray:
    """An array in a file, of which the header was read, and the values where they are asked for.

    Attributes:
        path: The file.
        key: Name of the array in an ``.npz``; None for an ``.npy``, which holds one.
        shape: Of the array; the file is long enough for it, or says that it is.
        dtype: Of the array, never one of objects.
        start: Where its values begin, behind the header.
        fortran: Whether they lie column by column.
    """

    path: Path
    key: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    fortran: bool

    def blocks(self, step: int) -> Iterator[npt.NDArray[Any]]:
        """Yields successive rows, (at most ``step``, ...), read one block at a time.

        Raises:
            InputError: The file is damaged or cut short.
        """
        if self.fortran:
            whole = self._by_columns()
            yield from (whole[start : start + step] for start in range(0, self.shape[0], step))
            return
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        with _opened(self.path, self.key) as file:
            with reading(self.path, EXPECTED):
                file.seek(self.start)
            for first in range(0, self.shape[0], step):
                rows = min(step, self.shape[0] - first)
                with reading(self.path, EXPECTED):
                    content = file.read(rows * row)
                    if first + rows == self.shape[0] and self.key is not None:
                        file.read(1)  # which compares the checksum
                if len(content) < rows * row:
                    raise self.refusal(counted(self.shape[0], "row"), f"a file that ends after {first}")
                yield np.frombuffer(content, self.dtype).reshape(rows, *self.shape[1:])

    def _by_columns(self) -> npt.NDArray[Any]:
        """The whole array: mapped where it has a file of its own, else in memory."""
        if self.key is None:
            with reading(self.path, EXPECTED):
                return np.memmap(self.path, self.dtype, "r", self.start, self.shape, "F")
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > resident_budget():
            hint = "save it by rows: np.ascontiguousarray"
            found = f"{size / 1e6:,.0f} MB by columns, more than the memory holds"
            raise self.refusal("rows one behind the other", found, hint)
        with _opened(self.path, self.key) as file, reading(self.path, EXPECTED):
            file.seek(self.start)
            return np.frombuffer(file.read(size), self.dtype).reshape(self.shape, order="F")

    def refusal(self, expected: str, found: object, hint: str | None = None) -> InputError:
        """Returns the error that names the file and the array."""
        return InputError(self.path, field=self.key, expected=expected, found=found, hint=hint)


def is_array_file(path: Path) -> bool:
    """Whether a file is of NumPy by its name, or by how it begins."""
    if path.suffix.lower() in (".npz", ".npy"):
        return True
    return _begins(path).startswith((NPZ, NPY))


def is_npz(path: Path) -> bool:
    """Tells an ``.npz`` (True) from an ``.npy``.

    Raises:
        InputError: It is neither, or there is no such file.
    """
    require_file(path, EXPECTED)
    with reading(path, EXPECTED), path.open("rb") as file:
        start = file.read(len(NPY))
    if not start.startswith((NPZ, NPY)):
        raise InputError(path, expected=EXPECTED, found="something else" if start else "an empty file")
    return start.startswith(NPZ)


def keys_of(path: Path) -> tuple[str, ...]:
    """Returns the names of the arrays in an ``.npz``.

    Raises:
        InputError: It is damaged.
    """
    with reading(path, EXPECTED), zipfile.ZipFile(path) as archive:
        return tuple(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))


def array_in(path: Path, key: str | None = None) -> FileArray:
    """Reads the header of an array: of that name in an ``.npz``, or of the one in an ``.npy``.

    Raises:
        InputError: There is none, it is damaged or too short, or it holds Python objects.
    """
    if key is not None and key not in (keys := keys_of(path)):
        others = listed(map(printable, keys), _NAMED) or "none"
        hint = "np.savez(FILE, X=features, y=labels) makes one" if "arr_0" in keys or not keys else None
        raise InputError(path, field=key, expected="an array of that name", found=others, hint=hint)
    with _opened(path, key) as file, reading(path, EXPECTED):
        shape, fortran, dtype = _header_of(path, key, file)
        found = FileArray(path, key, shape, dtype, file.tell(), fortran)
    if dtype.hasobject:
        hint = f"save {key or 'the array'} as numbers, or as text with .astype(str)"
        raise found.refusal("plain numbers or text", OBJECTS, hint)
    if not dtype.itemsize:
        raise found.refusal("plain numbers or text", "values of no bytes")
    needed, held = math.prod(shape) * dtype.itemsize, _held(path, key) - found.start
    if needed > held:
        raise found.refusal(f"{needed:,} bytes for shape {shape}", f"{max(held, 0):,}")
    return found


def _begins(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(NPY))
    except OSError:  # what opens it next says so
        return b""


@contextmanager
def _opened(path: Path, key: str | None) -> Iterator[IO[bytes]]:
    if key is None:
        with reading(path, EXPECTED):
            file = path.open("rb")
        with file:
            yield file
        return
    with reading(path, EXPECTED):
        archive = zipfile.ZipFile(path)
    with archive:
        with reading(path, EXPECTED):
            member = archive.open(f"{key}.npy")
        with member:
            yield member


def _header_of(path: Path, key: str | None, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it lies by columns, and dtype."""
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:  # of which only tables make use
        raise InputError(path, field=key, expected="plain numbers or text", found="a table with named fields")
    shape, fortran, dtype = readers[version](file)
    if min(shape, default=0) < 0:
        raise InputError(path, field=key, expected="a shape", found=shape)
    return shape, fortran, dtype


def _held(path: Path, key: str | None) -> int:
    """Bytes that an array's file holds, header included, as far as they are to be believed."""
    if key is None:
        return path.stat().st_size
    with reading(path, EXPECTED), zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{key}.npy")
        return min(member.file_size, MOST_COMPRESSED * min(member.compress_size, path.stat().st_size))
