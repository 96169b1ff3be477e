"""What POSIX has and other systems have not, each with what stands in for it. Everything else here is plain Python.

Linux has all of it; macOS lacks ``posix_fallocate``, ``fdatasync`` and ``sched_getaffinity``, Windows ``pwrite`` and
``preadv`` too.
Looked up at each call: tests take them away.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from threading import Lock

from features.runtime.containers import processors_allowed

DISK_FULL = frozenset(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
"""Numbers of the errors that say that there is no room for a file."""
_NO_FOLDER_SYNC = frozenset(
    getattr(errno, name) for name in ("EINVAL", "EBADF", "ENOSYS", "ENOTSUP", "EOPNOTSUPP") if hasattr(errno, name)
)
"""What file systems answer that cannot sync a folder, shared folders of virtual machines and old network disks."""
_BLOCK = 4096
"""Bytes; no file system has smaller blocks to give."""
_seeking = Lock()
"""All copies of a descriptor share one place in the file, which threads would take from under each other."""


def cpu_count() -> int:
    """Number of processors that this process may use: those it is bound to, fewer where a container has less time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    allowed = processors_allowed()
    return bound if allowed is None else min(bound, allowed)


def open_to_write(path: Path) -> int:
    """Returns a descriptor to write an existing file byte for byte.

    It cannot read: where a file is open for reading too, network file systems fetch whole pages and write them back
    whole, and so undo what another machine wrote beside.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))


def open_to_read(path: Path) -> int:
    """Returns a descriptor to read a file byte for byte: of this file, even where another one takes its name later.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))


def read_into(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fills ``buffer`` from a place of a file on.

    Raises:
        EOFError: The file ends before.
        OSError: The disk failed.
    """
    done = 0
    while done < len(buffer):
        count = _read_some(descriptor, buffer[done:], offset + done)
        if not count:
            raise EOFError
        done += count


def _read_some(descriptor: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    with _seeking, os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
        file.seek(offset)
        return file.readinto(buffer)


def allocate(descriptor: int, size: int) -> None:
    """Gives a file of ``size`` bytes all of its blocks; what is in it stays.

    Raises:
        OSError: The disk is too small for that.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for index in range(0, size, _BLOCK):  # as the C library does it where the file system cannot
        os.lseek(descriptor, index, os.SEEK_SET)
        byte = os.read(descriptor, 1) or b"\0"
        os.lseek(descriptor, index, os.SEEK_SET)
        os.write(descriptor, byte)


def write_some(descriptor: int, data: memoryview, offset: int) -> int:
    """Writes at a place of a file and returns how many bytes of ``data`` it took; only one thread may.

    Raises:
        OSError: The disk is full or failed.
    """
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)


def sync_data(descriptor: int) -> None:
    """Makes what was written to a file durable.

    Raises:
        OSError: The disk failed.
    """
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` durable, where a folder can be opened and synced; Windows sees to it itself.

    Raises:
        OSError: The disk failed.
    """
    if os.name == "nt":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one that may be written to and not listed: the rename has succeeded
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def give_name(path: Path, name: Path) -> None:
    """Lets a file be read under another name too: by a link, or by a copy where links need a permission.

    Raises:
        OSError: Neither can be made.
    """
    try:
        name.symlink_to(path.resolve())
    except OSError:
        shutil.copyfile(path, name)
