"""``summary.json``: what a study found, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from features.runtime.errors import InputError
from features.runtime.files import write_json
from features.runtime.json_files import read_json
from features.runtime.refusal import one_line
from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from search.record.costs import CostOfUse
from search.record.recommended import Recommendation
from search.record.recorded import OMIT_DEFAULT, Recorded
from search.record.results import (
    BankFigures,
    Calibration,
    Ensemble,
    Finalists,
    HeldOutTest,
    LeakCounts,
    OneAtATimeEstimate,
    RefitRecord,
    TrialResult,
)
from search.setup.config import StudyConfig
from search.setup.split import StudySplit
from search.trials.notes import TrialNotes
from search.trials.ranking import article_trial, is_counted, ranking
from search.trials.times import search_seconds

SUMMARY_FILE = "summary.json"


@dataclass(frozen=True, kw_only=True)
class StudyParts(Recorded):
    """The parts that the rows of a study are in.

    Attributes:
        counts: Rows of each, by its name.
        patients: Known patients of each, by its name.
        identity: Stands for which row is in which part.
        absent_classes: Names of the classes that a part has no image of, by the name of the part, or of the fold; None
            in studies from before these were looked for.
    """

    counts: dict[str, int]
    patients: dict[str, int]
    identity: str
    absent_classes: dict[str, tuple[str, ...]] | None = field(default=None, metadata=OMIT_DEFAULT)

    @classmethod
    def of(cls, split: StudySplit) -> StudyParts:
        """Returns what a summary says of a split."""
        absent = split.absent_classes if "absent_classes" in split.model_fields_set else None
        return cls(counts=split.counts, patients=split.patients, identity=split.identity, absent_classes=absent)


@dataclass(frozen=True, kw_only=True)
class Summary(Recorded):
    """What a study found.

    Attributes:
        name: Of the study.
        objective: What trials are ranked by, in words.
        trials: That have finished and count.
        completed: Of these, those that ran to their end.
        pruned: Those that were stopped as weak.
        failed: Those that could not go on.
        interrupted: Trials beside these that a killed run left, and that were run again.
        trial_epochs: Epochs of all trials together.
        search_seconds: In which at least one trial was under way; a study that was stopped is not, until it goes on.
        trial_epochs_per_second: Of the two the ratio; None where no time went by.
        best: The winner: what the repeats chose, or the best by its value where there were none; None where no trial
            completed.
        article: The article's head; None where it has not run to its end.
        finalists: The heads that were trained again; None where none were.
        ensemble: The average of them.
        recommendation: What is recommended, and what it was compared with; None without finalists, as in older studies.
        refit: How the winner was trained once more on all rows.
        calibration: Of the winner, on validation rows; None without finalists.
        test: What the test rows say; None where there are none, or they have not been used.
        verdict: That in a sentence.
        split: Counts, patients and identity of the parts, and the names of classes that they lack.
        store: Path and fingerprint of the store that was searched over.
        seed: Decides everything.
        engine: ``fused`` or ``solo``.
        failures: Why trials failed, by their number.
        bank: How well the bank was used; None with the solo engine.
        audit: What the parts share.
        one_at_a_time: What the trials would have taken one at a time.
        cost_of_use: What an image costs, in each store and through each head; None in studies from before that was
            measured.
        notes: What was decided without being asked, and what happened beside the numbers, a line each.
        notes_of_start: How many of these, the first ones, were said at the start and are not of the end; None in
            studies from before that was kept.
        withdrawn: Whether a later end has begun to replace the heads that this tells of. Until that has written its own
            summary, nothing that is said here of heads holds.
    """

    name: str
    objective: str = ""
    trials: int
    completed: int = 0
    pruned: int = 0
    failed: int = 0
    interrupted: int = 0
    trial_epochs: int = 0
    search_seconds: float = 0.0
    trial_epochs_per_second: float | None = None
    best: TrialResult | None = None
    article: TrialResult | None = None
    finalists: Finalists | None = None
    ensemble: Ensemble | None = None
    recommendation: Recommendation | None = field(default=None, metadata=OMIT_DEFAULT)
    refit: RefitRecord | None = None
    calibration: Calibration | None = None
    test: HeldOutTest | None = None
    verdict: str | None = None
    split: StudyParts
    store: dict[str, str] | None = None
    seed: int = 0
    engine: str = ""
    failures: dict[str, str] = field(default_factory=dict)
    bank: BankFigures | None = None
    audit: LeakCounts | None = field(default=None, metadata=OMIT_DEFAULT)
    one_at_a_time: OneAtATimeEstimate | None = field(default=None, metadata=OMIT_DEFAULT)
    cost_of_use: CostOfUse | None = field(default=None, metadata=OMIT_DEFAULT)
    notes: tuple[str, ...] = ()
    notes_of_start: int | None = field(default=None, metadata=OMIT_DEFAULT)
    withdrawn: bool = field(default=False, metadata=OMIT_DEFAULT)

    @property
    def absent_classes(self) -> dict[str, tuple[str, ...]]:
        """Names of the classes that a part has no image of, by the part's name; parts with all classes are not there.

        Studies from before these were looked for have none.
        """
        return self.split.absent_classes or {}

    @property
    def failures_by_reason(self) -> dict[str, list[str]]:
        """Numbers of the trials that failed, by why they did."""
        found: dict[str, list[str]] = {}
        for number, reason in self.failures.items():
            found.setdefault(reason, []).append(number)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of summary.json."""
        told = super().to_dict()
        return told | {"article": told["article"] or dict(_NO_ARTICLE)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuilds a summary from the content of summary.json, of this version or an older one.

        Raises:
            ValueError: It is something else.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"expected an object, found {type(data).__name__}")
        article = data.get("article")
        return super().from_dict({**data, "article": None if article == _NO_ARTICLE else article})

    def merged_with(self, concluded: Summary, *, still_chosen: bool) -> Summary:
        """Returns this count of the trials with what an end of the search concluded and still holds.

        What was measured of the search as a whole, and what the parts share, always does. What is told of one head does
        where that is still the best, what is told of the choice, and noted at the end, where nothing has been added to
        choose from.

        Args:
            concluded: As the search ended, perhaps a while ago.
            still_chosen: Whether no trial has finished since, and no later end has withdrawn it.
        """
        best = self.best.number if self.best else None
        test, refit = (None, None) if concluded.withdrawn else (concluded.test, concluded.refit)
        of_best = test if test and test.trial == best else None
        told = of_best is not None and (still_chosen or not of_best.recommended)
        return replace(
            self,
            finalists=concluded.finalists if still_chosen else None,
            ensemble=concluded.ensemble if still_chosen and concluded.finalists else None,
            recommendation=concluded.recommendation if still_chosen and concluded.finalists else None,
            refit=refit if refit and refit.trial == best else None,
            calibration=concluded.calibration if still_chosen else None,
            test=replace(of_best, recommended=None) if of_best and not still_chosen else of_best,
            verdict=concluded.verdict if told or (still_chosen and test is None) else None,
            bank=concluded.bank,
            audit=concluded.audit,
            one_at_a_time=concluded.one_at_a_time,
            cost_of_use=concluded.cost_of_use,
            notes=concluded.notes if still_chosen else concluded.notes[: concluded.notes_of_start or 0],
            notes_of_start=concluded.notes_of_start,
        )


_NO_ARTICLE = {"number": None, "value": None}


def summarise(study: optuna.Study, config: StudyConfig, *, chosen: int | None = None) -> Summary:
    """Counts a study's trials; what ``search.finish.conclusion`` adds is still empty.

    Args:
        study: The study.
        config: What was resolved.
        chosen: Number of the trial whose head the repeats chose; the best by its value where they have not.
    """
    trials = study.get_trials(deepcopy=False)
    counted = [trial for trial in trials if is_counted(trial)]
    seconds = search_seconds(trials)
    trial_epochs = sum(TrialNotes.of(trial).epochs for trial in counted)
    ranked = ranking(study)
    best = next((trial for trial in ranked if trial.number == chosen), next(iter(ranked), None))
    article = article_trial(study)
    failures = {f"{trial.number}": TrialNotes.of(trial).failure for trial in counted}
    return Summary(
        name=config.name,
        objective=f"validation {config.objective}",
        trials=len(counted),
        completed=_count(counted, TrialState.COMPLETE),
        pruned=_count(counted, TrialState.PRUNED),
        failed=_count(counted, TrialState.FAIL),
        interrupted=len([t for t in trials if t.state.is_finished()]) - len(counted),
        trial_epochs=trial_epochs,
        search_seconds=round(seconds, 3),
        trial_epochs_per_second=round(trial_epochs / seconds, 4) if seconds else None,
        best=result_of(best) if best else None,
        article=result_of(article) if article else None,
        split=StudyParts.of(config.split),
        store=config.stores.features.model_dump(),
        seed=config.seed,
        engine=config.engine,
        failures={number: reason for number, reason in failures.items() if reason is not None},
    )


def read_summary(folder: Path) -> Summary | None:
    """Returns the summary of an earlier run; None where there is none.

    Raises:
        InputError: The file is damaged.
    """
    path = folder / SUMMARY_FILE
    if not path.is_file():
        return None
    try:
        return _parsed(path)
    except InputError as error:
        raise error.advising(_ANEW) from error


_ANEW = "put a copy back, or remove it and --resume, which then knows of no earlier use of the test rows"


def _parsed(path: Path) -> Summary:
    expected = "a study's summary"
    data = read_json(path, expected)
    try:
        return Summary.from_dict(data)
    except ValidationError as error:
        raise one_line(path, error) from error
    except ValueError as error:
        raise InputError(path, expected=expected, found=f"something else ({error})") from error


def write_summary(folder: Path, summary: Summary) -> None:
    """Writes summary.json."""
    write_json(folder / SUMMARY_FILE, summary.to_dict())


def withdraw_summary(folder: Path) -> None:
    """Notes that the heads of an earlier end are about to give way, so that no stop leaves its figures beside others.

    It is kept, as the next end needs to know of it which heads have seen the test rows, and how often some have.

    Raises:
        InputError: It is damaged.
    """
    earlier = read_summary(folder)
    if earlier is not None and not earlier.withdrawn:
        write_summary(folder, replace(earlier, withdrawn=True))


def result_of(trial: FrozenTrial) -> TrialResult:
    """Returns what is told of a completed trial."""
    assert trial.value is not None
    notes = TrialNotes.of(trial)
    return TrialResult(
        number=trial.number,
        value=trial.value,
        validation_loss=notes.validation_loss,
        validation_accuracy=notes.validation_accuracy,
        best_epoch=notes.best_epoch,
        params=params_of(notes.head),
        parameters=notes.parameters,
        store=notes.store,
    )


def params_of(head: HeadSpec | OwnSpec) -> dict[str, Any]:
    """Returns a head as its parameters: the fields of ours, what somebody's own function suggested."""
    if isinstance(head, OwnSpec):
        return dict(head.params)
    return {name: value for name, value in head.to_dict().items() if name != "schema"}


def _count(trials: list[FrozenTrial], state: TrialState) -> int:
    return sum(trial.state == state for trial in trials)
