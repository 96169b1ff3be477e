"""Pruners, with their resources stated, so that they work from the first trials on."""

from __future__ import annotations

import math

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from search.setup.optuna_internals import PlacedHyperband
from search.trials.notes import TrialNotes
from search.trials.ranking import is_interrupted, ranking_score_of

REDUCTION = 2
"""Of the trials that reach a rung, one in this many goes on."""
MINIMUM_PEERS = 4
"""Below this many scores at a rung nobody is judged there."""
TIES_BY = 3
"""Equal scores at a rung are told apart by the mean of so many epochs' scores."""
Standing = tuple[float, float]
"""How good a trial is at an epoch, and lately: of either more is better."""


def rungs(epochs: int) -> tuple[int, ...]:
    """The epochs (1-based) after which trials are judged: an eighth, a quarter and a half of the way."""
    return tuple(sorted({max(1, epochs // 8), max(1, epochs // 4), max(1, epochs // 2)} - {epochs}))


class RungPruner(BasePruner):
    """Successive halving for cohorts and for one trial at a time.

    At each rung a trial is compared with every trial of the study that has a score there, whatever became of it
    since: running, pruned or finished (Optuna's own halving compares only with those judged before; its median
    pruner only with finished ones, of which a first cohort has none). It goes on if it is among the best
    1 / ``reduction`` of them. The rule is that of asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    Of a hundred validation rows many trials get equally many rows right. Equal scores are told apart by the mean of
    the last ``TIES_BY`` epochs and not by the loss, which smoothed labels raise whatever a head is worth; who is equal
    in that, too, goes on.
    """

    def __init__(
        self, rung_epochs: tuple[int, ...], *, reduction: int = REDUCTION, minimum_peers: int = MINIMUM_PEERS
    ) -> None:
        self.rung_epochs = rung_epochs
        self.reduction = reduction
        self.minimum_peers = minimum_peers
        self._known: dict[int, dict[int, tuple[FrozenTrial, Standing | None]]] = {}
        """By epoch and number: a trial, and its standing there if it has one.

        A storage does not change a trial that it has handed out, but puts another in its place: as long as it is the
        same object, its standing is the same.
        """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judges a trial at the epoch it reported last."""
        step = trial.last_step
        if step not in self.rung_epochs:
            return False
        standings = self._standings(study, step)
        if len(standings) < self.minimum_peers:
            return False
        mine = standing(study, trial, step)
        return sum(other > mine for other in standings) >= math.ceil(len(standings) / self.reduction)

    def _standings(self, study: optuna.Study, step: int) -> list[Standing]:
        """Those of all peers at an epoch. A cohort comes there at once, and each of it is asked for."""
        known, found = self._known.setdefault(step, {}), []
        for one in study.get_trials(deepcopy=False):
            held = known.get(one.number)
            if held is None or held[0] is not one:
                is_peer = step in one.intermediate_values and not is_interrupted(one)
                held = known[one.number] = one, standing(study, one, step) if is_peer else None
            if held[1] is not None:
                found.append(held[1])
        return found


def standing(study: optuna.Study, trial: FrozenTrial, step: int) -> Standing:
    """Returns how good a trial is at an epoch that it has reported."""
    values = trial.intermediate_values
    lately = [values[epoch] for epoch in range(step - TIES_BY + 1, step + 1) if epoch in values]
    return ranking_score_of(study, values[step]), ranking_score_of(study, math.fsum(lately) / len(lately))


class BracketPruner(BasePruner):
    """Optuna's Hyperband by a trial's ordinal, so that one that is run again is judged among the same.

    Those that were interrupted are in no bracket. It is not of Optuna's class: by that, samplers are shown the trials
    of one bracket, which of a trial that is being asked for would follow from its number.
    """

    def __init__(self, epochs: int) -> None:
        self._brackets = PlacedHyperband(_ordinal_of, least=max(1, epochs // 9), most=epochs, reduction=3)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judges a trial at the epoch it reported last."""
        return self._brackets.prune(study, trial)


def _ordinal_of(trial: FrozenTrial) -> int | None:
    if is_interrupted(trial):
        return None
    notes = TrialNotes.of(trial)
    return notes.ordinal if notes.has_ordinal else trial.number


def make_pruner(name: str, *, epochs: int) -> BasePruner:
    """Returns the pruner of a study whose trials take ``epochs`` epochs."""
    if name == "halving":
        return RungPruner(rungs(epochs))
    if name == "hyperband":
        return BracketPruner(epochs)
    if name == "median":
        return MedianPruner(n_startup_trials=MINIMUM_PEERS, n_warmup_steps=max(1, epochs // 8))
    return NopPruner()


def is_last_survivor(study: optuna.Study, number: int) -> bool:
    """Whether no other trial has finished or is running: pruning this one could leave a study without a result."""
    alive = (TrialState.COMPLETE, TrialState.RUNNING)
    return all(t.number == number for t in study.get_trials(deepcopy=False, states=alive))
