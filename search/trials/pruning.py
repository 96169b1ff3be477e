"""Pruners, with their resources stated, so that they work from the first trials on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from statistics import mean

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from search.setup.optuna_internals import PlacedHyperband
from search.trials.notes import TrialNotes
from search.trials.ranking import is_interrupted, ranking_score_of

REDUCTION = 2
"""Of the trials that reach a rung, one in this many goes on."""
LEAST_FINALISTS = 2
"""So many are trained to the end, beside the article's head."""
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


class FinalistPruner(BasePruner):
    """Successive halving among finalists: all runs of one are judged together, by their mean.

    At each rung the better half goes on, and at least two do; ``spared`` ones always, and are not counted. A finalist
    is judged once all of its runs are there, among those of which that is so, and not before it had the epochs that its
    trial needed: its earlier rungs are put off until then, where it is compared with what the others have come to. Of
    runs that train in several processes the last one to come there is judged, and the others follow it.
    """

    def __init__(
        self, rung_epochs: tuple[int, ...], *, runs: int, spared: Collection[int], needed: Sequence[int]
    ) -> None:
        """Prepares.

        Args:
            rung_epochs: Epochs (1-based) after which finalists are judged.
            runs: Runs of each finalist: those of finalist ``i`` have the ordinals from ``i * runs`` on.
            spared: Finalists that are never stopped.
            needed: Epochs that each finalist has at least.
        """
        self.judged_at = [{max(rung, least) for rung in rung_epochs} for least in needed]
        self.runs = runs
        self.spared = set(spared)
        self._judged: dict[int, tuple[list[tuple[TrialState, int]], set[int]]] = {}
        """By epoch: who falls behind there, as long as states and numbers of reports are what they were.

        A bank's runs come to a rung at once, and each is asked for.
        """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judges a run at the epoch it reported last."""
        step, mine = trial.last_step, TrialNotes.of(trial).ordinal // self.runs
        if mine in self.spared:
            return False
        if self._is_stopped(study, mine):
            return True
        if step not in self.judged_at[mine]:
            return False
        trials = study.get_trials(deepcopy=False)
        seen = [(other.state, len(other.intermediate_values)) for other in trials]
        known = self._judged.get(step)
        if known is None or known[0] != seen:
            known = self._judged[step] = seen, self._falling_behind(study, trials, step)
        return mine in known[1]

    def _falling_behind(self, study: optuna.Study, trials: Sequence[FrozenTrial], step: int) -> set[int]:
        """The finalists that are not among those that go on, of those whose runs are all there."""
        reached: dict[int, list[float]] = {}
        gone: Counter[int] = Counter()
        for other in trials:
            finalist = TrialNotes.of(other).ordinal // self.runs
            if is_interrupted(other) or finalist in self.spared:
                continue
            if step in other.intermediate_values:
                values = (value for epoch, value in other.intermediate_values.items() if epoch <= step)
                reached.setdefault(finalist, []).append(max(ranking_score_of(study, value) for value in values))
            elif other.state == TrialState.FAIL:
                gone[finalist] += 1
        means = {one: mean(values) for one, values in reached.items() if len(values) + gone[one] >= self.runs}
        best = sorted(means, key=lambda one: (-means[one], one))
        return set(best[max(LEAST_FINALISTS, math.ceil(len(best) / REDUCTION)) :])

    def _is_stopped(self, study: optuna.Study, finalist: int) -> bool:
        """Whether another run of a finalist was."""
        stopped = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
        return any(TrialNotes.of(other).ordinal // self.runs == finalist for other in stopped)


class BracketPruner(BasePruner):
    """Optuna's Hyperband by a trial's place in the study, so that one that is run again is judged among the same.

    Those that were interrupted are in no bracket. It is not of Optuna's class: by that, samplers are shown the trials
    of one bracket, which of a trial that is being asked for would follow from its number.
    """

    def __init__(self, epochs: int) -> None:
        self._brackets = PlacedHyperband(_place_of, least=max(1, epochs // 9), most=epochs, reduction=3)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Judges a trial at the epoch it reported last."""
        return self._brackets.prune(study, trial)


def _place_of(trial: FrozenTrial) -> int | None:
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
