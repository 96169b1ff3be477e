"""A study's record as it stands: read from its directory at one moment, whether its search is running or over."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, NonNegativeInt

from features.runtime.json_files import read_model
from features.runtime.lock import is_locked
from heads.metrics.scoring import Objective, best_of
from search.record.crew import ended_for, workers_of
from search.record.database import storage_errors
from search.record.noted_config import noted_config
from search.record.owner import ATTRIBUTE, Owner
from search.record.results import FinalistRecord
from search.record.storage import check_record, find_study, open_storage, where_kept
from search.record.summary import Summary, read_summary, summarise
from search.setup.config import SPLIT_FILE, StudyConfig
from search.setup.file_names import STUDY_FILE
from search.setup.new_study import new_study
from search.setup.space import FEATURES
from search.trials.given import GivenTrials
from search.trials.notes import TrialNotes
from search.trials.ranking import article_ordinals, article_trial, is_counted, ranking

_STATES = {TrialState.COMPLETE: "completed", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Progress(StrEnum):
    """How far a search is."""

    RUNNING = "running"
    STOPPED = "stopped"
    """Before its last trial, or before what comes after that."""
    FINISHED = "finished"


@dataclass(frozen=True)
class StudyRecord:
    """What a study directory says of its study.

    Attributes:
        folder: The study directory.
        config: What was resolved.
        study: A copy of the study in memory, with the same trial numbers: it does not move while it is looked at.
        progress: Whether the search runs, was stopped, or has finished.
        summary: Counted anew from the trials, with what the last end of the search concluded, where that still holds.
        concluded: ``summary.json`` itself; None before the first end of the search.
        joined: Whether processes have worked on it together.
        ended_in: The study directory of the one of them that ended it, and its machine; None where it is not over.
    """

    folder: Path
    config: StudyConfig
    study: optuna.Study
    progress: Progress
    summary: Summary
    concluded: Summary | None
    joined: bool = False
    ended_in: str | None = None

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials in order, not those that were interrupted and run again."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if is_counted(trial) or not trial.state.is_finished()]

    @property
    def ranked(self) -> list[FrozenTrial]:
        """The completed trials, best first: the finalists by the means of their repeats, then the others by value."""
        ranked = ranking(self.study)
        order = {one.trial: index for index, one in enumerate(self.finalists)}
        return sorted(ranked, key=lambda trial: order.get(trial.number, len(ranked)))

    @property
    def finalists(self) -> tuple[FinalistRecord, ...]:
        """The finalists, best first; empty where there are none, or the search went on."""
        return self.summary.finalists.heads if self.summary.finalists else ()

    @property
    def is_chosen_by_repeats(self) -> bool:
        """Whether the best trial is the one whose repeats have the best mean; another may have a better value."""
        return any(one.mean is not None for one in self.finalists)

    @property
    def article(self) -> FrozenTrial | None:
        """The article's head, on the first store of several, if it has run to its end."""
        return article_trial(self.study)

    def is_article_on_its_store(self, trial: FrozenTrial) -> bool:
        """Whether a trial is the article's head, on whichever store."""
        notes = TrialNotes.of(trial)
        return notes.has_ordinal and notes.ordinal in article_ordinals(self.config.space.get(FEATURES, ()))

    @property
    def is_concluded(self) -> bool:
        """Whether the end of the search is behind it, and no trial has finished and no later end begun since."""
        return _holds(self.concluded, self.summary.trials)

    @property
    def was_ended_elsewhere(self) -> bool:
        """Whether another worker has ended it, into a study directory of its own."""
        return self.ended_in is not None and not self.is_concluded

    @property
    def lacks_its_end(self) -> bool:
        """Whether all trials are through, and a stop or a kill took the study what comes after them."""
        return self.progress is Progress.STOPPED and self.summary.trials >= self.config.trials

    @property
    def resume_option(self) -> str:
        """The option of ``search.run`` that goes on with it."""
        return "--join" if self.joined else "--resume"

    @property
    def judging_rows(self) -> int:
        """Rows that a trial's value is the accuracy on; with folds, all that is not test."""
        return self.config.split.counts[self._judging_part]

    @property
    def judging_rows_by_class(self) -> tuple[int, ...]:
        """Of ``judging_rows`` those of each class; empty in a study from before these were noted."""
        return self.config.split.class_counts.get(self._judging_part, ())

    @property
    def _judging_part(self) -> str:
        return "train" if self.config.folds else "validation"


def read_record(folder: Path, storage: BaseStorage | None = None) -> StudyRecord:
    """Reads a study directory. Nothing in it is written, and a running search goes on undisturbed.

    Args:
        folder: The study directory.
        storage: Its storage, where that is open already.

    Raises:
        InputError: The folder is no study directory, or a file in it is damaged.
    """
    config = StudyConfig.read(folder)
    running = is_running(folder)
    with storage_errors(config.storage):
        opened = open_storage(folder, config.storage, config.name) if storage is None else storage
        where = where_kept(folder, config.storage)
        study = find_study(opened, where, config.name)
        check_record(study, where, config)
        owner, noted = Owner.read(study.user_attrs.get(ATTRIBUTE)), noted_config(study.user_attrs, f"{where}")
        if noted is not None and noted.trials > config.trials:  # it went on with more in another study directory
            config = config.model_copy(update={"trials": noted.trials})
        running = running or (owner is not None and owner.is_alive) or _is_worked_on(study, config.trials)
        joined, ended_in = noted is not None, ended_for(study.user_attrs, config.trials)
        trials = GivenTrials(study.get_trials(deepcopy=False))  # all is of one moment, and nothing is read twice
        study = new_study(storage=trials, study_name=config.name, directions=study.directions)
    concluded = read_summary(folder)
    chosen = _chosen(study, concluded)
    summary = summarise(study, config, chosen=chosen)
    if concluded is not None:
        summary = summary.merged_with(concluded, still_chosen=chosen is not None)
    ended = chosen is not None or ended_in is not None or not summary.completed  # nothing follows where none completed
    over = summary.trials >= config.trials and ended
    progress = Progress.RUNNING if running else Progress.FINISHED if over else Progress.STOPPED
    return StudyRecord(folder, config, study, progress, summary, concluded, joined, ended_in)


def _chosen(study: optuna.Study, concluded: Summary | None) -> int | None:
    """The trial that the repeats chose, unless the search has gone on since."""
    counted = sum(is_counted(trial) for trial in study.get_trials(deepcopy=False))
    return concluded.best.number if concluded and concluded.best and _holds(concluded, counted) else None


def _holds(concluded: Summary | None, trials: int) -> bool:
    """Whether what an end of the search concluded is true of a study that has so many trials by now."""
    return concluded is not None and not concluded.withdrawn and concluded.trials == trials


class _RowsOfParts(BaseModel):
    rows: dict[str, list[NonNegativeInt]]


def read_split(folder: Path) -> dict[str, list[int]]:
    """Reads ``split.json``; returns the rows of each part.

    Raises:
        InputError: It is missing or damaged.
    """
    return read_model(folder / SPLIT_FILE, _RowsOfParts, "the rows of a study's parts").rows


def is_running(folder: Path) -> bool:
    """Whether a search holds the study's lock."""
    return is_locked(folder / STUDY_FILE)


def _is_worked_on(study: optuna.Study, trials: int) -> bool:
    """Whether processes work on a study together; those are leaving that are there after its end."""
    attributes = study.user_attrs
    return ended_for(attributes, trials) is None and any(one.is_alive for one in workers_of(attributes).values())


def state_of(trial: FrozenTrial) -> str:
    """Returns ``completed``, ``pruned``, ``failed`` or ``running``."""
    return _STATES.get(trial.state, "running")


def curve(trial: FrozenTrial) -> dict[int, float]:
    """Returns the objective after each epoch (1-based), as reported, in order."""
    return dict(sorted(trial.intermediate_values.items()))


def epochs_of(trial: FrozenTrial) -> int:
    """Epochs that a trial has trained, or has trained so far."""
    return TrialNotes.of(trial).epochs or max(trial.intermediate_values, default=0)


def best_by(trial: FrozenTrial, epoch: int, objective: Objective) -> float | None:
    """Returns a trial's best value in its first epochs; None where it has not got so far, or was NaN there."""
    if epochs_of(trial) < epoch:
        return None
    reached = [value for at, value in trial.intermediate_values.items() if at <= epoch and not math.isnan(value)]
    return best_of(reached, objective) if reached else None
