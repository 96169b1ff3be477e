"""The orthonormal basis of a compressed store: which directions of a backbone's channels it keeps."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from features.hdf5.door import opened
from features.hdf5.values import Attributes, inner_dataset
from features.runtime.errors import InputError
from features.runtime.files import replacing
from features.runtime.portable import cpu_count

DATASET = "projection"
SOURCE = "compressed_from"
TOLERANCE = 1e-3
"""Of an inner product of two directions, which is 0, or 1 of one with itself."""
_products = Lock()
"""How many threads a product may take is a setting of the process."""


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@dataclass(frozen=True, eq=False)
class Projection:
    """Channels to fewer: ``features @ basis``, place by place. Two are equal where their numbers and source are.

    Attributes:
        basis: (channels, kept) float32, orthonormal columns, the strongest direction first; read-only.
        compressed_from: Fingerprint of the store whose features it was made of.
    """

    basis: npt.NDArray[np.float32]
    compressed_from: str

    def __post_init__(self) -> None:
        self.basis.setflags(write=False)

    @property
    def channels(self) -> int:
        """Channels of the features as the backbone gave them."""
        return int(self.basis.shape[0])

    @property
    def kept(self) -> int:
        """Channels that are left."""
        return int(self.basis.shape[1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the basis: its shape and its numbers."""
        numbers = np.ascontiguousarray(self.basis, "<f4").tobytes()
        return hashlib.sha256(f"{self.basis.shape}".encode() + numbers).hexdigest()

    def apply(self, features: npt.NDArray[Any], dtype: str, path: Path) -> npt.NDArray[Any]:
        """Projects features.

        Each map is a product of its own, on one core: what comes of it depends neither on what is projected beside it
        nor on the number of cores, over which the maps are spread.

        Args:
            features: (..., height, width, channels).
            dtype: Of what is returned.
            path: Where they are from, for the message.

        Returns:
            (..., height, width, kept).

        Raises:
            InputError: A value is not finite, or too large for ``dtype``.
        """
        height, width, channels = features.shape[-3:]
        maps = features.reshape(-1, height * width, channels)
        projected = np.empty((len(maps), height * width, self.kept), dtype)

        def project(which: range) -> None:
            with np.errstate(over="ignore", invalid="ignore"):
                for number in which:
                    projected[number] = maps[number].astype(np.float32, copy=False) @ self.basis

        workers = min(cpu_count(), len(maps)) or 1
        with _products, _blas().limit(limits=1), ThreadPoolExecutor(workers) as pool:
            list(pool.map(project, (range(first, len(maps), workers) for first in range(workers))))
        if not np.isfinite(projected).all():
            expected = f"values of which sums stay within {np.finfo(dtype).max:g}, the largest {dtype}"
            raise InputError(path, field="features", expected=expected, found="larger ones, or NaN")
        return projected.reshape(*features.shape[:-1], self.kept)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Projection):
            return NotImplemented
        return (self.compressed_from, self.digest) == (other.compressed_from, other.digest)

    def __hash__(self) -> int:
        return hash((self.compressed_from, self.digest))

    def __str__(self) -> str:
        return f"{self.kept:,} of {self.channels:,} channels"

    def __repr__(self) -> str:
        return f"{self}, basis {self.digest[:16]}"


def save_projection(path: Path, projection: Projection) -> None:
    """Writes a file of the basis alone, with the names that it has in a store; complete or not at all.

    Raises:
        BottleneckError: It cannot be written.
    """
    with h5py.File.in_memory(libver=("earliest", "v108")) as file:
        file.create_dataset(DATASET, data=projection.basis)
        file.attrs[SOURCE] = projection.compressed_from
        file.flush()
        image = bytes(file.id.get_file_image())
    with replacing(path, needed=len(image)) as temporary:
        temporary.write_bytes(image)


def load_projection(path: Path) -> Projection:
    """Reads what ``save_projection`` wrote.

    Raises:
        InputError: There is no such file, or it is damaged.
    """
    expected = "the basis of a compressed store"
    with opened(path, expected) as file:
        projection = read_projection(path, file)
    if projection is None:
        raise InputError(path, field=DATASET, expected=expected, found="none")
    return projection


def read_projection(path: Path, file: Any) -> Projection | None:
    """Reads the basis of a file; None where there is none.

    Args:
        path: The file, for messages.
        file: The file, opened through ``features.hdf5.door``.

    Raises:
        InputError: It is no orthonormal basis, or does not say of which store.
    """
    attributes = Attributes(path, file)
    if DATASET not in file and SOURCE not in attributes:
        return None
    dataset = inner_dataset(path, file, DATASET, expected="the basis of a compressed store")
    shape, dtype = tuple(dataset.shape or ()), dataset.dtype
    if dtype != np.float32 or not dtype.isnative or len(shape) != 2 or not 0 < shape[1] <= shape[0]:
        expected = "float32 (channels, channels kept), of which there are no more"
        raise InputError(path, field=DATASET, expected=expected, found=f"{dtype} {shape}")
    basis = np.asarray(dataset[:], np.float32)
    with np.errstate(all="ignore"):
        off = np.abs(basis.T @ basis - np.eye(shape[1], dtype=np.float32)).max()
    if not off <= TOLERANCE:
        raise InputError(path, field=DATASET, expected="orthonormal directions", found="others")
    return Projection(basis, attributes.text(SOURCE))
