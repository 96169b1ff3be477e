"""Seeds derived from the run's one seed, so that nothing depends on the clock or on order of execution."""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, purpose: str, number: int = 0) -> int:
    """Returns a seed in [0, 2**31) for one purpose of one trial (or of the whole run)."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), number])
    return int(sequence.generate_state(1)[0] >> 1)
