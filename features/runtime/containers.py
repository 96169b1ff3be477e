"""What a container, a batch system or a shell lets this process have: limits that the machine's figures do not show.

Linux keeps them in control groups, version 1 or 2, on any level between the root that is seen from here and the
process's own group; the tightest one holds. What cannot be read, there or on another system, limits nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from features.runtime.allocator import kept_memory

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_MEMORY = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    2: (("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file")),
}
"""Files of limits, of what is held, and in memory.stat the keys of what is held of files, for each version: of those
that were read once, and of those that were read again."""
_UNLIMITED = 2**60
"""Bytes; version 1 has no word for *unlimited* and gives the largest number of whole pages instead."""


def memory_left() -> int | None:
    """Bytes that this process may still take by the limits that are set for it; None where none is.

    What a group holds of files that were read or written counts as free: the system gives it up where memory is asked
    for.
    """
    left = [max(0, limit - held) for limit, held in [*_memory_of_groups(), *_memory_of_process()]]
    return min(left, default=None)


def processors_allowed() -> int | None:
    """Processors' worth of time that this process may use, rounded up; None where that is not limited."""
    shares = [quota / period for quota, period in _quotas() if quota > 0 and period > 0]
    return max(1, math.ceil(min(shares))) if shares else None


def _memory_of_groups() -> Iterator[tuple[int, int]]:
    """Yields (limit, bytes held) of each group that limits memory."""
    for version, group in _groups("memory"):
        limits, held, cached = _MEMORY[version]
        found = [limit for limit in (_number(_text(group / name)) for name in limits) if limit is not None]
        if not found or min(found) >= _UNLIMITED:
            continue
        stored = (line.split() for line in _text(group / "memory.stat").splitlines())
        given_up = sum(_number(pair[1]) or 0 for pair in stored if len(pair) == 2 and pair[0] in cached)
        yield min(found), max(0, (_number(_text(group / held)) or 0) - given_up)


def _memory_of_process() -> Iterator[tuple[int, int]]:
    """Yields (limit, bytes held) of the limits that ``ulimit -v`` and ``ulimit -d`` set.

    Both count addresses, which the heap keeps when its memory goes back; what it has free is there to be taken.
    """
    if resource is None:
        return
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        number = getattr(resource, name, None)
        limit = resource.getrlimit(number)[0] if number is not None else resource.RLIM_INFINITY
        if limit not in (resource.RLIM_INFINITY, -1) and limit < _UNLIMITED:
            held = psutil.Process().memory_info()
            addresses = int(held.vms if name == "RLIMIT_AS" else getattr(held, "data", held.rss))
            yield limit, addresses - kept_memory()


def _quotas() -> Iterator[tuple[int, int]]:
    """Yields (time, period) of each group that limits processor time, in microseconds."""
    for version, group in _groups("cpu"):
        if version == 2:
            words = _text(group / "cpu.max").split()
        else:
            words = [*_text(group / "cpu.cfs_quota_us").split(), *_text(group / "cpu.cfs_period_us").split()]
        numbers = [_number(word) for word in words]
        if len(numbers) == 2 and numbers[0] is not None and numbers[1] is not None:
            yield numbers[0], numbers[1]


def _groups(controller: str) -> Iterator[tuple[int, Path]]:
    """Yields the version and the folder of each group that this process is in, with those that it lies in."""
    for line in _text(_OWN).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # of version 2 there is one tree; beside those of version 1 it lies in a folder of its own
            yield from ((2, group) for root in (_ROOT, _ROOT / "unified") for group in _ancestors(root, path))
        elif controller in controllers.split(","):
            roots = dict.fromkeys((_ROOT / controller, _ROOT / controllers))
            yield from ((1, group) for root in roots for group in _ancestors(root, path))


def _ancestors(root: Path, path: str) -> Iterator[Path]:
    """Yields a group's folder and those above it. Seen from within a container some of them are not there."""
    parts = PurePosixPath(path.strip()).parts[1:]
    if ".." in parts:  # a group outside of what is seen from here
        parts = ()
    for depth in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:depth])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """A whole number; None for ``max`` and for all else."""
    try:
        return int(text.strip())
    except ValueError:
        return None
