"""Samplers, seeded per trial, so that a resumed search draws what the uninterrupted one would have drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from search.setup.optuna_internals import PlacedSequence
from search.setup.seeds import derive_seed
from search.trials.given import study_of
from search.trials.pruning import rungs, standing
from search.trials.ranking import is_interrupted, ranking_score_of

EXPLORED = 1 / 3
"""Share of the trials that ``bohb`` draws at random: what it has not seen it does not propose."""
ENOUGH = 10
"""Scores at a rung from which on trials are told apart there, and not at an earlier one."""
Height = tuple[int, float, float]
"""The rung at which a trial is compared, and its standing there."""


class JointSpace:
    """What all completed trials have that have anything: Optuna's intersection, with each trial compared once.

    It follows from the study alone, in whatever order trials come: one serves all samplers of a study, and a new one
    finds the same.
    """

    def __init__(self) -> None:
        self._taken: dict[int, dict[str, BaseDistribution]] = {}
        self._space: dict[str, BaseDistribution] = {}

    def of(self, trials: Iterable[FrozenTrial]) -> dict[str, BaseDistribution]:
        """Returns the space of a study's trials, in the order of the names."""
        found = {
            one.number: one.distributions for one in trials if one.state == TrialState.COMPLETE and one.distributions
        }
        for number, space in self._taken.items():
            now = found.get(number)
            if now is not space and now != space:  # no longer complete, as one that was lost to another process
                self._taken = {}
                break
        for number, domains in found.items():
            if number in self._taken:
                continue
            if not self._taken:
                self._space = domains
            self._space = {name: domain for name, domain in self._space.items() if domains.get(name) == domain}
            self._taken[number] = domains
        return dict(sorted(self._space.items())) if found else {}


class JointSampler(TPESampler):
    """Optuna's TPE, which trials without parameters do not keep from drawing jointly.

    It draws jointly what all completed trials have. The article's head beside those of somebody's own function has none
    of the function's parameters, and would leave each to be drawn by itself.
    """

    def __init__(self, *, seed: int, joint: JointSpace | None = None, constant_liar: bool = True) -> None:
        """Prepares.

        Args:
            seed: Decides what is drawn, given the study.
            joint: That of the study, where other samplers draw from it, too.
            constant_liar: Whether running trials count as bad.
        """
        super().__init__(seed=seed, constant_liar=constant_liar)
        self._joint = joint or JointSpace()

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See ``BaseSampler``."""
        del trial
        found = self._joint.of(study.get_trials(deepcopy=False))
        return {name: domain for name, domain in found.items() if not domain.single()}


class SequenceSampler(PlacedSequence):
    """Optuna's quasi-random sequence, which a first trial without parameters does not make one of nothing.

    Its space is that of the first trial that ended, which beside somebody's own function is the article's head. What a
    trial has beyond that space is drawn at random.
    """

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See ``BaseSampler``."""
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        first = next((one for one in ended if one.distributions), None)
        return dict(first.distributions) if first else super().infer_relative_search_space(study, trial)


class RungSampler(BaseSampler):
    """TPE over what trials have come to by the same epoch, those that train still among them.

    Optuna's own takes every trial that was not pruned for better than every one that was, and counts those that are
    running among the bad. In a pool that is misleading: the good ones are those that run for long, and before many
    have come to their end the good ones are whoever has, the article's heads first. Here all are ranked by their scores
    at the latest rung that ``ENOUGH`` have reached, wherever they are now; who has not reached it follows, by the rung
    before, and so on.
    That is the model of BOHB (Falkner et al. 2018, arXiv:1807.01774) on the budgets of asynchronous halving.

    One sampler serves one trial.
    """

    def __init__(self, rung_epochs: Sequence[int], *, seed: int, joint: JointSpace | None = None) -> None:
        """Prepares.

        Args:
            rung_epochs: Epochs (1-based) by whose scores trials are compared, in ascending order.
            seed: Decides what is drawn, given the study.
            joint: That of the trials that have a rank, where other such samplers draw from the study, too.
        """
        self._rung_epochs = tuple(rung_epochs)
        self._tpe = JointSampler(seed=seed, joint=joint, constant_liar=False)
        self._ranked: optuna.Study | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See ``BaseSampler``."""
        return self._tpe.infer_relative_search_space(self._ranking_of(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See ``BaseSampler``."""
        return self._tpe.sample_relative(self._ranking_of(study, trial), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See ``BaseSampler``."""
        return self._tpe.sample_independent(self._ranking_of(study, trial), trial, param_name, param_distribution)

    def _ranking_of(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        """A study in memory of the trials that have a score, each with its rank among them as its value."""
        if self._ranked is None:
            trials = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
            heights = heights_of(study, trials, self._rung_epochs)
            ranks = {height: float(rank) for rank, height in enumerate(sorted(set(heights.values())))}
            ranked = ((one, ranks[heights[one.number]]) for one in trials if one.number in heights)
            self._ranked = study_of(ranked)
        return self._ranked


def heights_of(study: optuna.Study, trials: Iterable[FrozenTrial], rung_epochs: Sequence[int]) -> dict[int, Height]:
    """Says how high trials have come: of two the higher one is the better.

    Args:
        study: Says which direction is better.
        trials: Any of it. Those that failed, or train and have reached no rung, are left out.
        rung_epochs: In ascending order.

    Returns:
        By the trials' numbers.
    """
    reached = {one.number: _reached(study, one, rung_epochs) for one in trials if not is_interrupted(one)}
    counts = [sum(rung in scores for scores in reached.values()) for rung in range(len(rung_epochs))]
    top = max((rung for rung, count in enumerate(counts) if count >= ENOUGH), default=0)
    heights = {}
    for number, scores in reached.items():
        if scores:
            rung = max(rung for rung in scores if rung <= top)
            heights[number] = (rung, *scores[rung])
    return heights


def _reached(study: optuna.Study, trial: FrozenTrial, rung_epochs: Sequence[int]) -> dict[int, tuple[float, float]]:
    """A trial's standing at each rung that it has reached, by the rung's place."""
    values = trial.intermediate_values
    if trial.state == TrialState.FAIL:
        return {}
    scores = {rung: standing(study, trial, epoch) for rung, epoch in enumerate(rung_epochs) if epoch in values}
    if trial.state == TrialState.COMPLETE and trial.value is not None:  # it may have ended early
        value = ranking_score_of(study, trial.value)
        scores = dict.fromkeys(range(len(rung_epochs)), (value, value)) | scores
    elif trial.state == TrialState.PRUNED and values and not scores:
        scores = {-1: standing(study, trial, max(values))}
    return scores


def make_sampler(name: str, *, seed: int, ordinal: int, epochs: int, joint: JointSpace | None = None) -> BaseSampler:
    """Returns the sampler for one trial.

    They keep no state but their generator, so a sampler of its own for each trial costs nothing and depends on nothing
    but its arguments and the study's finished and running trials. A quasi-random sequence is one for the whole study,
    and a trial's point in it that of its ordinal.

    Args:
        name: ``tpe``, ``bohb``, ``random`` or ``qmc``.
        seed: Seed of the run.
        ordinal: How many trials came before, those not counted that were interrupted and run again.
        epochs: Of a trial that is not pruned.
        joint: One for all samplers of that name of a study: it spares time, and changes nothing that is drawn.
    """
    trial_seed = derive_seed(seed, "sampler", ordinal)
    if name == "qmc":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return SequenceSampler(ordinal, seed=derive_seed(seed, "qmc"), beside=RandomSampler(seed=trial_seed))
    if name == "tpe":
        return JointSampler(seed=trial_seed, joint=joint)
    if name == "random" or np.random.default_rng(trial_seed).random() < EXPLORED:
        return RandomSampler(seed=trial_seed)
    return RungSampler(rungs(epochs) or (epochs,), seed=trial_seed, joint=joint)
