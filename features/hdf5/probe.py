"""A process of its own that reads all there is to read of an HDF5 file, but for large arrays: it may not come back.

It is run by its path and imports nothing of ours, so that it starts as fast as h5py does.
"""

from __future__ import annotations

import contextlib
import math
import sys
from typing import Any

NO_H5PY = 3
"""Exit status where there is nothing to read files with."""
try:
    import h5py
except ImportError:
    if __name__ == "__main__":
        sys.exit(NO_H5PY)
    raise

MEMORY = 4 * 2**30
"""Bytes of address space: what a damaged file makes HDF5 ask for beyond that ends this process alone."""
WHOLE = 2**24
"""Bytes up to which a dataset is read as a whole; of a larger one its first and its last value."""


def touch(path: str) -> None:
    """Reads a file as far as any reader of ours would. What raises an exception is left to the reader."""
    with h5py.File(path, "r", locking=False) as file:
        met: set[Any] = set()
        waiting: list[Any] = [file["/"]]
        while waiting:
            with contextlib.suppress(Exception):
                node = waiting.pop()
                place = h5py.h5o.get_info(node.id)
                if (place.fileno, place.addr) in met:
                    continue
                met.add((place.fileno, place.addr))
                _attributes(node)
                if isinstance(node, h5py.Dataset):
                    _values(node)
                elif isinstance(node, h5py.Group):
                    waiting += list(_children(node))


def _attributes(node: Any) -> None:
    for name in node.attrs:
        with contextlib.suppress(Exception):
            node.attrs[name]


def _children(group: Any) -> Any:
    for name in group:
        with contextlib.suppress(Exception):
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                yield group[name]


def _values(dataset: Any) -> None:
    if dataset.external or dataset.is_virtual:  # in other files, which nobody is to open
        return
    if dataset.chunks:
        dataset.id.get_num_chunks()
    if dataset.size and math.prod(dataset.shape) * dataset.dtype.itemsize > WHOLE:
        dataset[(0,) * dataset.ndim], dataset[tuple(side - 1 for side in dataset.shape)]
    else:
        dataset[()]


def main() -> None:
    """Touches the file that is named on the command line."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(Exception):
        touch(sys.argv[1])


if __name__ == "__main__":
    main()
