"""The one door through which HDF5 files come in: nothing in them can hold a command up, or end it in a traceback."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from features.hdf5 import probe
from features.hdf5.structure import SIGNATURE, DamagedError, is_plain
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import require_file
from features.runtime.portable import DISK_FULL
from features.runtime.text import printable, shortened

PATIENCE_S = 20.0
"""What a process of its own may take to read a file of unknown structure, before the file counts as damaged."""
_OPENED_OTHERWISE = re.compile(
    r"file (?:locking|close degree)\b.* match|is already open for read-only|file that is already"
)
"""What HDF5 says of a file that the same process has open with other settings.

Of one that a killed program left marked as being written it says "already open for write", in whichever process.
"""
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}) | DISK_FULL
"""Errors of a system that has too many files open, too little memory, or a full disk: nothing is said of the file.

A full disk is met by what is written on the way.
"""
_sound: set[tuple[str, int, int, int]] = set()
"""Files that were read by a process of their own: name, number, size and time."""


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Says in one line whatever h5py, NumPy or JSON stumble over in a file.

    Args:
        path: The file.
        expected: What it has to be.

    Raises:
        InputError: In place of any exception but our own, and failed assertions, which say nothing of the file.
        BottleneckError: The system has no room for another open file, no memory for what is in it, or a full disk.
    """
    try:
        yield
    except (BottleneckError, AssertionError):
        raise
    except MemoryError as error:
        raise BottleneckError(f"{path}: not enough memory to read it") from error
    except DamagedError as error:
        raise InputError(path, expected=expected, found=error) from error
    except FileNotFoundError as error:
        raise InputError(path, expected=expected, found="no such file") from error
    except PermissionError as error:
        raise InputError(path, expected=expected, found="no permission to read it") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and error.errno in _SHORT:
            raise BottleneckError(f"{path}: cannot be opened: {os.strerror(error.errno)}") from error
        said = error.args[0] if isinstance(error, KeyError) and error.args else error  # a KeyError quotes what it says
        reason = printable(str(said) or type(error).__name__)
        raise InputError(path, expected=expected, found=f"a damaged file ({shortened(reason, 160)})") from error


@contextmanager
def opened(path: Path, expected: str, *, locking: bool | None = False) -> Iterator[Any]:
    """Opens a file that may come from anywhere, to read; within, ``reading`` holds.

    Args:
        path: The file.
        expected: What it has to be, for messages.
        locking: HDF5's own lock: off, as it would keep readers out while a writer appends rows (ours keeps a second
            writer out); None for what others open the file with by default, as it must be the same for all.

    Yields:
        The ``h5py.File``, once HDF5 is known to come back from all of it.

    Raises:
        InputError: There is no such file, it is no HDF5, or it is damaged.
    """
    with reading(path, expected), open_checked(path, expected, locking=locking) as file:
        yield file


def open_checked(path: Path, expected: str, *, locking: bool | None = False) -> Any:
    """As ``opened``, for who closes the file himself and reads within ``reading``."""
    with reading(path, expected):
        _check_is_hdf5(path, expected)
        if not is_plain(path):
            _check_in_a_process(path)
        return _open(path, expected, locking)


def _open(path: Path, expected: str, locking: bool | None) -> Any:
    """Opens a file to read it, also one that a notebook has open: within a process HDF5 asks for the same lock again.

    It does not say which one that is.
    """
    for way in (locking, *(other for other in (None, True, False) if other is not locking)):
        try:
            return h5py.File(path, "r", locking=way)
        except OSError as error:
            if not _OPENED_OTHERWISE.search(str(error)):
                raise
    found = "one that this process has opened by h5py in another way"
    raise InputError(path, expected=expected, found=found, hint="close it there")


def _check_is_hdf5(path: Path, expected: str) -> None:
    require_file(path, expected)
    with path.open("rb") as raw:
        start = raw.read(len(SIGNATURE))
    if start != SIGNATURE and not h5py.is_hdf5(path):  # which a block of the user's may stand before
        raise InputError(path, expected=expected, found="a file that is no HDF5" if start else "an empty file")


def _check_in_a_process(path: Path) -> None:
    """Lets another process read the file first, and ends it where HDF5 does not come back, or takes it down."""
    about = path.stat()
    which = (str(path.absolute()), about.st_ino, about.st_size, about.st_mtime_ns)
    if which in _sound:
        return
    command = [sys.executable or "", "-P", probe.__file__, os.fspath(path.absolute())]
    found_here = os.pathsep.join(entry for entry in sys.path if entry and isinstance(entry, str))
    try:
        status = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
            env=os.environ | {"PYTHONPATH": found_here},
        ).returncode
    except (FileNotFoundError, PermissionError) as error:
        raise BottleneckError(f"{path}: cannot be tried, as Python is not found at {sys.executable!r}") from error
    except subprocess.TimeoutExpired as error:
        raise DamagedError("HDF5 does not come to an end with it") from error
    if status == probe.NO_H5PY:
        raise BottleneckError(f"{path}: cannot be tried, as h5py is not found by a process of {sys.executable}")
    if status:
        raise DamagedError("HDF5 breaks down over it")
    _sound.add(which)
