"""How much memory there is to plan with."""

from __future__ import annotations

import psutil

from features.runtime.allocator import give_back_freed_memory
from features.runtime.containers import memory_left


def resident_budget() -> int:
    """Bytes that features may take in memory: half of what is available now, the rest is for training.

    Available is what the machine has left, or less where a container, a batch system or ``ulimit`` allows less. What
    this process has freed and kept is part of it: it is given back first, so that what follows a bank, as repeats do,
    has as much as a process that begins with it.
    """
    give_back_freed_memory()
    free, allowed = int(psutil.virtual_memory().available), memory_left()
    return (free if allowed is None else min(free, allowed)) // 2
