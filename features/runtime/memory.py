"""How much memory there is to plan with."""

from __future__ import annotations

import psutil


def resident_budget() -> int:
    """Bytes that features may take in memory: half of what is available now, the rest is for training."""
    return int(psutil.virtual_memory().available // 2)
