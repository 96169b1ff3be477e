"""Memory that is used again and again stays with the process."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""``mallopt(3)``'s parameters."""
_NEVER = -1


def keep_freed_memory() -> bool:
    """Keeps what this process frees for what it allocates next; for one that trains banks or runs images.

    A training step, and a batch of images in a backbone, makes and frees arrays of tens of megabytes. The C library
    gets each of them from the kernel and gives it back, whatever its size is above 32 MB, and the kernel fills every
    page with zeros once more: in a search with a bank of 256 pages a fifth of the processor time (``docs/bank.md``), in
    an extraction a third (``docs/benchmarks.md``). From now on they come from the heap, which does not shrink; the peak
    is what it was, or little more.

    Threads share one heap, since those of others are too small for such arrays. A thread that started before has one
    of its own, and threads that start later may be given that: call this before there are any.

    Returns:
        Whether the C library is one that takes it (glibc).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: 2**26}
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings.items())
