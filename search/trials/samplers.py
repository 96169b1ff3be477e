"""Samplers, seeded per trial, so that a resumed search draws what the uninterrupted one would have drawn."""

from __future__ import annotations

import warnings

import optuna
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler

from search.setup.seeds import derive_seed


def make_sampler(name: str, *, seed: int, ordinal: int) -> BaseSampler:
    """Returns the sampler for one trial.

    TPE and random search keep no state but their generator, so a sampler of its own for each trial costs nothing and
    depends on nothing but its arguments and the study's finished and running trials. A quasi-random sequence is one
    for the whole study: its position is kept in the study itself.

    Args:
        name: ``tpe``, ``random`` or ``qmc``.
        seed: Seed of the run.
        ordinal: How many trials came before, those not counted that were interrupted and run again.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "qmc":
            return QMCSampler(scramble=True, seed=derive_seed(seed, "qmc"), warn_independent_sampling=False)
        trial_seed = derive_seed(seed, "sampler", ordinal)
        return TPESampler(seed=trial_seed) if name == "tpe" else RandomSampler(seed=trial_seed)
