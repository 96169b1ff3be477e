"""Memory that is used again and again stays with the process."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""``mallopt(3)``'s parameters."""
_NEVER = -1
_INFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Info(ctypes.Structure):
    """``struct mallinfo2``."""

    _fields_ = [(name, ctypes.c_size_t) for name in _INFO]


def keep_freed_memory() -> bool:
    """Keeps what this process frees for what it allocates next; for one that trains banks or runs images.

    A training step, and a batch of images in a backbone, makes and frees arrays of tens of megabytes. The C library
    gets each of them from the kernel and gives it back, whatever its size is above 32 MB, and the kernel fills every
    page with zeros once more: in a search with a bank of 256 pages a fifth of the processor time (``docs/bank.md``), in
    an extraction a third (``docs/benchmarks-history.md``). From now on they come from the heap, which shrinks only when
    it is told to; the peak is what it was, or little more.

    Threads share one heap, since those of others are too small for such arrays. A thread that started before has one
    of its own, and threads that start later may be given that: call this before there are any.

    Returns:
        Whether the C library is one that takes it (glibc).
    """
    if not _is_glibc():
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: 2**26}
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings.items())


def give_back_freed_memory() -> None:
    """Gives what was freed and kept to the kernel, once: before it is asked how much memory there is.

    What is allocated next is filled with zeros again, so this is for the end of something large.
    """
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def kept_memory() -> int:
    """Bytes of this process's heap that nobody uses; 0 where the C library does not say (glibc from 2.33 on does)."""
    mallinfo: Any = getattr(ctypes.CDLL(None), "mallinfo2", None) if _is_glibc() else None
    if mallinfo is None:
        return 0
    mallinfo.restype = _Info
    return int(mallinfo().fordblks)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
