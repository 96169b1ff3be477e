"""Memory that is used again and again stays with the process."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""``mallopt(3)``'s parameters."""
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keeps what this process frees for what it allocates next; for a process that trains banks of heads.

    A training step makes and frees arrays of tens of megabytes. The C library gets each of them from the kernel and
    gives it back, whatever its size is above 32 MB, and the kernel fills every page with zeros once more: in a search
    with a bank of 256 pages a fifth of the processor time (``docs/bank.md``). From now on they come from the heap,
    which does not shrink; the peak is what it was, or little more. Threads share one heap, since those of others are
    too small for such arrays: call this before the first threads start.

    Returns:
        Whether the C library is one that takes it (glibc).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _MOST, _TOP_PAD: 2**26}
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings.items())
