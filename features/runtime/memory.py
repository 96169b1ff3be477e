"""How much memory there is to plan with."""

from __future__ import annotations

import psutil

from features.runtime.containers import memory_left


def resident_budget() -> int:
    """Bytes that features may take in memory: half of what is available now, the rest is for training.

    Available is what the machine has left, or less where a container, a batch system or ``ulimit`` allows less.
    """
    free, allowed = int(psutil.virtual_memory().available), memory_left()
    return (free if allowed is None else min(free, allowed)) // 2
