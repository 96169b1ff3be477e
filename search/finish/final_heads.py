"""The heads that a study ends with: trained on all rows and calibrated, or trials' own heads, as they lie there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from features.runtime.errors import BottleneckError
from heads.model.spec import HeadSpec
from search.finish.calibration import calibration_of, temperature_of
from search.finish.checkpoints import TopCheckpoints
from search.finish.choice import Choice
from search.finish.refit import Refit, ToRefit, refit
from search.finish.repeat_predictions import of_each_seed
from search.finish.repeats import Finalist
from search.finish.searched import Searched
from search.record.head_files import copy_path_of, find_head, head_files
from search.record.results import Calibration, Ensemble, RefitRecord
from search.record.summary import withdraw_summary
from search.setup.data import SearchData
from search.setup.left_open import MOST_REPEATS
from search.training.stages import OnStage, Stage, untold
from search.trials.notes import TrialNotes
from search.trials.ranking import article_trial, ranking


@dataclass(frozen=True)
class FinalHeads:
    """The heads of a study that are tested and exported.

    Attributes:
        choice: Who won, and the finalists.
        heads: Files by trial: of the winner, the article's head and the finalists, as far as they are there.
        refits: Which of these were trained on all rows; empty where trials' own heads leave.
        lost: Why others could not be, by trial.
        article: Trial of the article's head; None where it has no file.
        temperatures: What calibrates a finalist, by trial; None where no row says.
    """

    choice: Choice
    heads: Mapping[int, Path]
    refits: Mapping[int, Refit]
    lost: Mapping[int, str]
    article: int | None
    temperatures: Mapping[int, float | None]

    @property
    def members(self) -> dict[int, Path]:
        """Files of the heads that the ensemble averages, by trial."""
        return {number: self.heads[number] for number in self.choice.members if number in self.refits}

    @property
    def copies(self) -> dict[int, int]:
        """How many heads there are of each trial, from as many seeds."""
        return {number: made.copies for number, made in self.refits.items()}

    def ensemble(self, data: SearchData) -> Ensemble | None:
        """Returns which heads ``search.export --which ensemble`` averages, and what calibrates them.

        Averages of the members' repeats are ensembles like it, of heads that were not trained on the validation rows:
        as many as came through of the member that has the fewest.
        """
        if len(self.members) < 2:
            return None
        probabilities = {finalist.trial: finalist.probabilities for finalist in self.choice.finalists}
        temperature = temperature_of(of_each_seed(probabilities.get(number, ()) for number in self.members), data)
        return Ensemble(trials=tuple(self.members), temperature=temperature)

    def winner_refit(self, searched: Searched) -> RefitRecord | None:
        """Returns how the winner was trained on all rows; None where its trial's own head leaves."""
        made = self.refits.get(self.choice.trial)
        if made is None:
            return None
        store = {trial.number: TrialNotes.of(trial).store for trial in ranking(searched.study)}[made.trial]
        parts = searched.data.of(store).parts_but_test
        return RefitRecord(trial=made.trial, rows=made.rows, epochs=made.epochs, parts=parts)

    def winner_calibration(self, data: SearchData) -> Calibration | None:
        """Returns what the winner's temperature makes of the validation rows; None where it has none."""
        winner = self.choice.trial
        probabilities = next((one.probabilities for one in self.choice.finalists if one.trial == winner), ())
        return calibration_of(probabilities, self.temperatures.get(winner), data)


def train_final_heads(choice: Choice, checkpoints: TopCheckpoints, *, on_stage: OnStage = untold) -> FinalHeads:
    """Trains the final heads on all rows, calibrates them, and writes them in the place of those of an earlier end.

    Without finalists nothing is calibrated: the only rows to fit a temperature on are those that chose the trial.

    Raises:
        BottleneckError: The winner could not be trained on all rows.
    """
    searched = checkpoints.searched
    article = article_trial(searched.study)
    to_refit = _to_refit(choice, checkpoints)
    if to_refit:
        on_stage(Stage.REFIT)
    refits, reasons = refit(to_refit, searched.config, searched.data, searched.own) if to_refit else ({}, {})
    lost = {trial: f"trial {trial}: its head could not be trained on all rows: {why}" for trial, why in reasons.items()}
    if choice.trial in lost:
        raise BottleneckError(lost[choice.trial])
    on_stage(Stage.CALIBRATION)
    temperatures = {one.trial: temperature_of(one.probabilities, searched.data.first) for one in choice.finalists}
    _save(refits, choice, temperatures, checkpoints)
    numbers = [choice.trial, *([article.number] if article else []), *(one.trial for one in choice.sound)]
    heads = {
        number: find_head(searched.folder, number, refitted=bool(to_refit))
        for number in dict.fromkeys(numbers)
        if not to_refit or number in refits
    }
    return FinalHeads(
        choice=choice,
        heads=heads,
        refits=refits,
        lost=lost,
        article=article.number if article and article.number in heads else None,
        temperatures=temperatures,
    )


def _save(
    refits: Mapping[int, Refit], choice: Choice, temperatures: Mapping[int, float | None], checkpoints: TopCheckpoints
) -> None:
    """Writes the heads that were trained on all rows, in the place of those of an earlier end."""
    folder = checkpoints.searched.folder
    if refits or head_files(folder, "refit", "copy"):
        withdraw_summary(folder)
    records = {finalist.trial: finalist.record for finalist in choice.finalists}
    written: list[Path] = []
    for number, made in refits.items():
        written += checkpoints.save_refit(made, records.get(number), temperatures.get(number))
    checkpoints.forget_refits_but(written)


def copies_of(folder: Path, trial: int, copies: int) -> list[Path]:
    """Returns the files of a trial's heads from several seeds."""
    return [copy_path_of(folder, trial, copy) for copy in range(copies)]


def _to_refit(choice: Choice, checkpoints: TopCheckpoints) -> Sequence[ToRefit]:
    """The heads to train on all rows: the finalists; without these, and with folds, the best trial and the article's.

    Of finalists that all diverged nothing is known but their trials, which are then what there is.

    Without folds and finalists the trial's own head leaves as it is, where it is on the disk: one that another process
    has trained may be on another machine's, and one may have got lost.
    """
    searched = checkpoints.searched
    if choice.sound:
        return [
            ToRefit(one.trial, one.ordinal, one.head, one.epochs, one.rates, one.store, _copies(one, choice))
            for one in choice.sound
        ]
    best, article = ranking(searched.study)[0], article_trial(searched.study)
    trials = list({trial.number: trial for trial in (best, article) if trial}.values())
    if not searched.config.folds and all(map(checkpoints.kept_head, trials)):
        return []
    return [_of_trial(trial) for trial in trials]


def _copies(finalist: Finalist, choice: Choice) -> int:
    """Of the winner as many as it had runs, so that their average can be recommended; of others one."""
    averages = finalist.trial == choice.trial and isinstance(finalist.head, HeadSpec)
    return max(1, min(MOST_REPEATS, len(finalist.probabilities))) if averages else 1


def _of_trial(trial: FrozenTrial) -> ToRefit:
    notes = TrialNotes.of(trial)
    return ToRefit(trial.number, notes.ordinal, notes.head, notes.best_epoch, notes.learning_rates, notes.store)
