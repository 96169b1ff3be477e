"""Seeds derived from the run's one seed, so that nothing depends on the clock or on order of execution."""

from __future__ import annotations

import zlib

import numpy as np


def derive_seed(seed: int, purpose: str, number: int = 0) -> int:
    """Returns a seed in [0, 2**31) for one purpose of one trial (or of the whole run)."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), number])
    return int(sequence.generate_state(1)[0] >> 1)


def head_seed(seed: int, ordinal: int) -> int:
    """Returns the seed of a trial's head, by the run's seed and the trial's ordinal."""
    return derive_seed(seed, "head", ordinal)


def fold_seeds(seed: int, folds: int) -> tuple[int, ...]:
    """Returns the seeds of a trial's heads, by that of the trial: one for each fold, the first without folds."""
    return (seed, *(derive_seed(seed, "fold", fold) for fold in range(1, folds)))


def batches_seed(seed: int) -> int:
    """Returns the seed of the order of the rows, by the run's seed: one for all trials."""
    return derive_seed(seed, "batches")


def refit_seed(seed: int, ordinal: int, copy: int = 0) -> int:
    """Returns the seed of a trial's head that is trained on all rows, or of one of its further copies."""
    return derive_seed(seed, f"refit copy {copy}" if copy else "refit", ordinal)


def refit_batches_seed(seed: int) -> int:
    """Returns the seed of the order of all rows, by the run's seed."""
    return derive_seed(seed, "refit batches")
