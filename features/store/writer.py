"""The one writer of a feature store.

Every dataset is contiguous and allocated when the file is made, so rows are written with ``pwrite`` at the dataset's
offset: after creation a killed writer can leave no half-written HDF5 metadata.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from features.hdf5.door import opened
from features.hdf5.values import Attributes
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import disk_error, replacing
from features.runtime.lock import WriterLock
from features.runtime.portable import open_to_write, sync_data
from features.store.contiguous import allocated, declare, write_at
from features.store.feature_writer import FeaturesPlace, runs_of
from features.store.limits import require_own_name
from features.store.projection import DATASET
from features.store.schema import (
    DIGEST_BYTES,
    EXPECTED,
    RowState,
    StoreHeader,
    dataset_offset,
    fixed_width,
    header_attributes,
    read_contents,
    read_header,
    read_states,
)


def require_place(path: Path) -> None:
    """Refuses a place where no store can be made or finished, before much is read for it; the writer looks again.

    Raises:
        InputError: Nothing can be written there, or there is another file.
        BottleneckError: Another process is writing it.
    """
    lock = _lock(path)
    if lock is not None:
        lock.release()


def _lock(path: Path) -> WriterLock | None:
    """Takes the writer's lock; None of a finished store where nothing may be written: it needs none."""
    try:
        return WriterLock(path)
    except InputError:
        if not path.exists():
            raise
        with opened(path, EXPECTED) as file:
            read_header(path, file)
            if not Attributes(path, file).flag("complete"):
                raise
        return None


class StoreWriter:
    """Makes a store, or goes on with an unfinished one. Use as a context manager: it holds the writer's lock.

    Features are flushed to disk before ``done`` says that they are there. Every write is one ``pwrite``: an error
    (a full disk, say) surfaces as an exception, where a memory map would end in SIGBUS.
    """

    def __init__(self, path: str | os.PathLike[str], header: StoreHeader) -> None:
        """Takes the lock, then creates the file or checks that the existing one is the same store.

        A finished store needs no place to write to, and where there is none no lock: nothing is written to it.

        Raises:
            InputError: The store exists and differs from ``header``; the field is named. Or there is none, and its name
                is another format's.
            BottleneckError: Another process is writing it, it may not be written, or the disk is too small.
        """
        self.path = Path(path)
        self.header = header
        self._descriptor = -1
        if not self.path.exists():
            require_own_name(self.path)
        self._lock = _lock(self.path)
        try:
            self._is_new = not self.path.exists()
            if self._is_new:
                _create(self.path, header)
            self._look()
            if not self.complete:
                self._open()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        """Reads what is in the file, which must be the same store."""
        with opened(self.path, EXPECTED) as file:
            read_header(self.path, file).check_same(self.path, self.header)
            self._features_at = dataset_offset(self.path, file, "features")
            self._done_at = dataset_offset(self.path, file, "done")
            self._contents_at: int | None = None
            if read_contents(self.path, file, len(self.header)) is not None:
                self._contents_at = dataset_offset(self.path, file, "contents")
            self.done: npt.NDArray[np.uint8] = read_states(self.path, file, len(self.header))
            self.complete = Attributes(self.path, file).flag("complete")

    def _open(self) -> None:
        try:
            self._descriptor = open_to_write(self.path)
        except OSError as error:
            raise disk_error(self.path, error) from error

    @property
    def features_place(self) -> FeaturesPlace:
        """Where other processes write features of rows, with this one's leave."""
        return FeaturesPlace.of(self.path, self._features_at, self.header.shape[1:], self.header.dtype)

    def pending(self) -> Iterator[range]:
        """Yields the batches (row ranges, aligned to ``batch_size``) that are not all settled yet."""
        size = self.header.batch_size
        for start in range(0, len(self.header), size):
            rows = range(start, min(start + size, len(self.header)))
            if np.any(self.done[start : rows.stop] == RowState.PENDING):
                yield rows

    def write(
        self,
        rows: Sequence[int],
        features: npt.NDArray[Any] | None,
        states: npt.NDArray[np.uint8],
        contents: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Writes rows: features and hashes, flush, then states, flush.

        Args:
            rows: A batch from ``pending``, or a part of one, or any other rows in ascending order.
            features: (len(rows), views, height, width, channels) in the store's dtype; rows that are skipped hold 0.
                None where a ``FeatureWriter`` has written them, and flushed.
            states: (len(rows),) of DONE or SKIPPED.
            contents: (len(rows), 16) hashes of the source files, where they are known and the store keeps them.

        Raises:
            BottleneckError: The disk is full or failed, and what was written before stays valid; or the file is gone.
        """
        self._require_in_place()
        if features is not None:
            expected = (len(rows), *self.header.shape[1:])
            assert features.shape == expected, f"{features.shape=} {expected=}"
            assert features.dtype == self.header.dtype, f"{features.dtype=}"
        runs = [*runs_of(rows)]
        try:
            for inside, first in runs:
                if features is not None:
                    write_at(self._descriptor, features[inside], self._features_at + first * self.header.row_bytes)
                if contents is not None and self._contents_at is not None:
                    write_at(self._descriptor, contents[inside], self._contents_at + first * DIGEST_BYTES)
            sync_data(self._descriptor)
            for inside, first in runs:
                write_at(self._descriptor, states[inside].astype(np.uint8), self._done_at + first)
            sync_data(self._descriptor)
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.done[list(rows)] = states

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Removes the store again where this writer has made it, and what it is to hold turns out not to fit.

        Nothing could finish it.
        """
        try:
            yield
        except InputError:
            if self._is_new:
                self.path.unlink()
            raise

    def finish(self) -> None:
        """Marks the store complete once every row is settled.

        Raises:
            BottleneckError: The disk failed, or the file is gone.
        """
        assert not np.any(self.done == RowState.PENDING)
        if self.complete:
            return
        self._require_in_place()
        try:
            os.fsync(self._descriptor)
            with h5py.File(self.path, "r+", locking=False) as file:
                file.attrs.modify("complete", np.bool_(True))
            os.fsync(self._descriptor)
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.complete = True

    def _require_in_place(self) -> None:
        """Refuses to go on with a file that has lost its name: nobody finds there what is written."""
        try:
            there = os.path.samestat(os.fstat(self._descriptor), self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            there = False
        except OSError as error:
            raise disk_error(self.path, error) from error
        if not there:
            raise BottleneckError(f"{self.path}: moved or removed while it was written")

    def close(self) -> None:
        """Gives the lock back; the store stays as it is, finished or resumable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _create(path: Path, header: StoreHeader) -> None:
    """Makes the whole file, features allocated but empty."""
    texts = {"paths": header.paths, "patients": header.patients} | ({"parts": header.parts} if header.parts else {})
    encoded = {name: fixed_width(values) for name, values in texts.items()}
    labels, sizes = np.asarray(header.labels, np.int32), np.asarray(header.sizes, np.int64)
    modified = np.asarray(header.modified, np.int64)
    needed = len(header) * header.row_bytes + len(header) + len(modified) * (modified.itemsize + DIGEST_BYTES)
    needed += sum(array.nbytes for array in (*encoded.values(), labels, sizes))
    needed += 0 if header.projection is None else header.projection.basis.nbytes
    with replacing(path, needed=needed) as temporary, allocated(temporary, needed=needed) as file:
        declare(file, "features", header.shape, header.dtype)
        declare(file, "done", (len(header),), "uint8")
        if len(modified):
            declare(file, "contents", (len(header), DIGEST_BYTES), "uint8")
            file.create_dataset("modified", data=modified)
        file.create_dataset("labels", data=labels)
        file.create_dataset("sizes", data=sizes)
        for name, array in encoded.items():
            file.create_dataset(name, data=array)
        if header.projection is not None:
            file.create_dataset(DATASET, data=header.projection.basis)
        for name, value in header_attributes(header).items():
            file.attrs[name] = value
