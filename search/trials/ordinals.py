"""The ordinals of a study: each is a trial's, whatever becomes of it, and seeds and samples derive from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from search.setup.optuna_internals import running_trial
from search.trials.notes import TrialNotes
from search.trials.ranking import ARTICLE_ORDINAL, INTERRUPTED, is_counted, is_interrupted


class Ordinals(Protocol):
    """Gives out the ordinals of one study."""

    def begin(self, planned: Sequence[Mapping[str, Any]]) -> None:
        """Enqueues the trials that are decided before the study, unless that was done: their parameters in order."""

    @property
    def is_left(self) -> bool:
        """Whether ``next`` may have a trial."""

    def next(self, sampler_of: Callable[[int], BaseSampler]) -> tuple[Trial, int] | None:
        """Returns the next trial, running, and its ordinal.

        Args:
            sampler_of: The sampler of the trial of an ordinal.

        Returns:
            None where there is none, or none at this moment.
        """

    def wait(self) -> bool:
        """Waits a moment for trials that others may leave; False where every ordinal has its result."""


class SoleOrdinals:
    """The ordinals of a study that one process searches."""

    def __init__(self, study: optuna.Study, most: int, *, resumed: Collection[int] = ()) -> None:
        """Prepares.

        Args:
            study: Optuna's study.
            most: Ordinals that it has.
            resumed: Numbers of running trials that a snapshot brings back; other running trials were interrupted.
        """
        self._study = study
        self._most = most
        self._resumed = resumed
        self._held: set[int] = set()
        self._next = self._asked = 0

    def begin(self, planned: Sequence[Mapping[str, Any]]) -> None:
        """Closes what was interrupted, too."""
        self._close_interrupted(planned)
        trials = self._study.get_trials(deepcopy=False)
        self._held = _held(self._study)
        for ordinal, parameters in enumerate(planned):
            if ordinal not in self._held:
                self._study.enqueue_trial(dict(parameters), user_attrs=TrialNotes.as_attributes(ordinal=ordinal))
                self._held.add(ordinal)
        self._next = self._free_from(ARTICLE_ORDINAL + 1)
        self._asked = sum(is_counted(trial) for trial in trials) + len(self._resumed)

    @property
    def is_left(self) -> bool:
        """Whether the study has fewer trials than it was to have, running ones included."""
        return self._asked < self._most

    def next(self, sampler_of: Callable[[int], BaseSampler]) -> tuple[Trial, int] | None:
        """Returns the next trial and its ordinal; None where none is left."""
        if not self.is_left:
            return None
        self._asked += 1
        self._study.sampler = sampler_of(self._next)
        trial = self._study.ask()
        notes = TrialNotes.of(trial)
        if notes.has_ordinal:
            return trial, notes.ordinal
        ordinal, self._next = self._next, self._free_from(self._next + 1)
        TrialNotes.write(trial, ordinal=ordinal)
        return trial, ordinal

    def wait(self) -> bool:
        """There are no others."""
        return False

    def _free_from(self, ordinal: int) -> int:
        """The first from ``ordinal`` that no trial has."""
        while ordinal in self._held:
            ordinal += 1
        return ordinal

    def _close_interrupted(self, planned: Sequence[Mapping[str, Any]]) -> None:
        """Fails the trials that a killed run left running, and enqueues each to be run again.

        Left running they would mislead the sampler, which takes them for trials under way.
        """
        trials = self._study.get_trials(deepcopy=False)
        waiting = {TrialNotes.of(t).rerun_of for t in trials if t.state == TrialState.WAITING}
        for trial in trials:
            if trial.state != TrialState.RUNNING or trial.number in self._resumed:
                continue
            rerun = self._rerun(trials, trial, planned)
            if rerun is not None and trial.number not in waiting:  # enqueued first: a kill in between loses nothing
                self._study.enqueue_trial(dict(rerun), user_attrs=TrialNotes.as_rerun_of(trial))
            TrialNotes.write(running_trial(self._study, trial), failure=INTERRUPTED)
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _rerun(
        self, trials: list[FrozenTrial], trial: FrozenTrial, planned: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, Any] | None:
        """The parameters to run again; ``None`` where not all had been drawn: its ordinal is free, to draw the same."""
        notes = TrialNotes.of(trial)
        if notes.has_head:
            return trial.params  # of one that was planned, too: what the plan leaves open had been drawn
        if notes.has_ordinal and notes.ordinal < len(planned):
            return planned[notes.ordinal]
        origin = notes.rerun_of
        return self._rerun(trials, trials[origin], planned) if origin is not None else None


def _held(study: optuna.Study) -> set[int]:
    """The ordinals of trials that have ended, wait or go on: an interrupted one's is that of its rerun, or free."""
    trials = (trial for trial in study.get_trials(deepcopy=False) if not is_interrupted(trial))
    return {notes.ordinal for notes in map(TrialNotes.of, trials) if notes.has_ordinal}
