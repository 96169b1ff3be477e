"""HDF5 files whose contiguous datasets are allocated when the file is made, and filled past HDF5 afterwards.

HDF5 ends the process where its file cannot grow, at the latest on exit. So whether it can is found out first, and what
is large is written by ``pwrite`` into blocks that are there already: a full disk is an exception like any other.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from features.runtime.portable import allocate, write_some

_TRIED = 2**26
"""Bytes that a new file is given for a moment: more than HDF5 itself writes there of 100,000 rows."""


@contextmanager
def allocated(path: Path, *, needed: int) -> Iterator[Any]:
    """Yields a new HDF5 file to declare datasets in; once it is closed, all its blocks belong to it.

    Args:
        path: The file to make.
        needed: Bytes that it will take, at least.

    Raises:
        OSError: The disk is too small for that.
    """
    with path.open("w+b") as file:
        if shutil.disk_usage(path.parent).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.truncate(needed)  # finds out about limits on a file's size
        allocate(file.fileno(), min(needed, _TRIED))  # and about a user's quota, which is no disk's to tell
    with h5py.File(path, "w", libver=("earliest", "v108")) as hdf5:
        yield hdf5
    with path.open("r+b") as file:
        allocate(file.fileno(), path.stat().st_size)


def declare(file: Any, name: str, shape: tuple[int, ...], dtype: str) -> int:
    """Adds a contiguous dataset without writing or time-stamping it; returns its byte offset, which is final."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.CONTIGUOUS)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, plan)
    return int(dataset.get_offset())


def write_at(descriptor: int, array: npt.NDArray[Any], offset: int) -> None:
    """Writes all of an array's bytes at ``offset`` of an open file.

    Raises:
        OSError: The disk is full or failed.
    """
    view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    while view:
        written = write_some(descriptor, view, offset)
        view, offset = view[written:], offset + written
