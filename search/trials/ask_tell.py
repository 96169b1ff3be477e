"""The book of trials: every trial asked for is told exactly once, whatever happens to it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from heads.metrics.scoring import EpochRecord, Score
from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from search.setup.config import StudyConfig
from search.setup.optuna_internals import running_trial, warn_of_conditions
from search.setup.own_head import OwnHead
from search.setup.seeds import head_seed
from search.setup.space import ARTICLE, Space
from search.trials.notes import TrialNotes
from search.trials.ordinals import Ordinals, SoleOrdinals
from search.trials.pruning import is_last_survivor, make_pruner
from search.trials.ranking import ARTICLE_ORDINAL, article_ordinals, ranking_score_of
from search.trials.samplers import JointSpace, make_sampler


@dataclass(frozen=True)
class Planned:
    """A trial that is decided before the study.

    Attributes:
        head: Its head, whether the space can express it or not.
        store: Name of its store; '' in a study of one.
        epochs: How long it trains, where that is decided, too: its last epoch counts then. None: as every trial.
    """

    head: HeadSpec | OwnSpec
    store: str = ""
    epochs: int | None = None


@dataclass(frozen=True)
class Asked:
    """A trial that is running.

    Attributes:
        trial: Optuna's side of it.
        ordinal: Its number in the study, in which interrupted trials that were run again do not count; seeds and
            samples derive from it, so they are the same with and without an interruption.
        head: The head, ours or one of somebody's own function.
        seed: Decides its initial weights and dropout.
        store: Name of the store that it trains on; '' in a study of one.
        problem: Why there is no model of it; None where there is one.
        epochs: How long it trains, where that was planned; None: as long as the study's trials do.
    """

    trial: Trial
    ordinal: int
    head: HeadSpec | OwnSpec
    seed: int
    store: str = ""
    problem: str | None = None
    epochs: int | None = None

    @property
    def last_counts(self) -> bool:
        """Whether the trial is what its last epoch makes of it; else its best epoch is picked."""
        return self.epochs is not None or self.head.last_counts

    @property
    def spec(self) -> HeadSpec:
        """The head, of those that a bank trains."""
        assert isinstance(self.head, HeadSpec)
        return self.head

    @property
    def number(self) -> int:
        """Optuna's number of the trial."""
        return int(self.trial.number)

    @property
    def is_article(self) -> bool:
        """Whether this is the article's head, on the first store of several."""
        return self.ordinal == ARTICLE_ORDINAL


def resumed_trial(study: optuna.Study, number: int, *, seed: int) -> Asked:
    """Returns a running trial of a study of a seed that a snapshot brings back.

    Raises:
        IndexError: There is no such trial.
        KeyError: It was not given a head yet.
        ValueError: It is not running.
    """
    frozen = study.get_trials(deepcopy=False)[number]
    if frozen.state != TrialState.RUNNING:
        raise ValueError(f"trial {number}: expected it to be running, found {frozen.state.name}")
    notes = TrialNotes.of(frozen)
    return Asked(running_trial(study, frozen), notes.ordinal, notes.head, head_seed(seed, notes.ordinal), notes.store)


class Book:
    """Asks, reports, judges and tells the trials of one study."""

    def __init__(
        self,
        study: optuna.Study,
        config: StudyConfig,
        space: Space | OwnHead,
        *,
        planned: Sequence[Planned] | None = None,
        resumed: Collection[int] = (),
        ordinals: Ordinals | None = None,
    ) -> None:
        """Opens the book.

        Args:
            study: Optuna's study.
            config: What was resolved.
            space: What trials draw from; or somebody's own function, which suggests and makes heads.
            planned: The first trials. Else they are the article's head on each store, and are never pruned: the others
                are compared with them.
            resumed: Numbers of running trials that a snapshot brings back; other running trials were interrupted.
            ordinals: Gives out the ordinals of the study, where several processes share them.
        """
        self.study = study
        self.config = config
        self.space = space
        stores = space.stores if isinstance(space, Space) else ()
        usual = [Planned(ARTICLE, store) for store in stores or ("",)]
        self._planned = dict(enumerate(usual if planned is None else planned))
        self._spared = article_ordinals(stores) if planned is None else range(0)
        if config.sampler == "qmc":
            warn_of_conditions(not isinstance(space, Space))  # somebody's own function may have some
        study.pruner = make_pruner(config.pruner, epochs=config.epochs)
        self._joint = JointSpace()
        self._ordinals = ordinals or SoleOrdinals(study, config.trials, resumed=resumed)
        self._ordinals.begin([self._parameters_of(one) for one in self._planned.values()])

    def ask(self) -> Asked | None:
        """Returns the next trial to run; None where the study has all that it was to have, or none at this moment."""
        found = self._ordinals.next(self._sampler)
        if found is None:
            return None
        trial, ordinal = found
        seed = head_seed(self.config.seed, ordinal)
        store = self._store(trial, ordinal)
        head, problem = self._head(trial, ordinal, seed)
        if store:
            TrialNotes.write(trial, store=store)  # before the head: a trial that has one has all
        if isinstance(head, HeadSpec):
            TrialNotes.write(trial, spec=head)
        else:
            TrialNotes.write(trial, own=head)
        return Asked(trial, ordinal, head, seed, store, problem, self._epochs(ordinal))

    def _sampler(self, ordinal: int) -> BaseSampler:
        config = self.config
        return make_sampler(config.sampler, seed=config.seed, ordinal=ordinal, epochs=config.epochs, joint=self._joint)

    def _store(self, trial: Trial, ordinal: int) -> str:
        """The store of a trial, drawn before its head."""
        drawn = self.space.suggest_store(trial) if isinstance(self.space, Space) else ""
        planned = self._planned.get(ordinal)
        return drawn if planned is None else planned.store

    def _head(self, trial: Trial, ordinal: int, seed: int) -> tuple[HeadSpec | OwnSpec, str | None]:
        """The head of a trial, and why there is none. What is planned is no question to somebody's own function."""
        planned = self._planned.get(ordinal)
        if isinstance(self.space, Space):
            suggested = self.space.suggest(trial)
            return suggested if planned is None else planned.head, None
        return (planned.head, None) if planned is not None else self.space.suggest(trial, seed=seed)

    def _epochs(self, ordinal: int) -> int | None:
        planned = self._planned.get(ordinal)
        return None if planned is None else planned.epochs

    def _parameters_of(self, one: Planned) -> dict[str, Any]:
        """The parameters to enqueue for a planned trial; none where somebody's own function suggests them."""
        if isinstance(self.space, Space) and isinstance(one.head, HeadSpec):
            return dict(self.space.parameters_of(one.head, one.store))
        return {}

    def resumed_trial(self, number: int) -> Asked:
        """Returns a running trial that a snapshot brings back; raises what the function of this name does."""
        asked = resumed_trial(self.study, number, seed=self.config.seed)
        return replace(asked, epochs=self._epochs(asked.ordinal))

    def note_pause(self, number: int, since: datetime) -> None:
        """Notes of a running trial that a snapshot brings back that nothing ran from a moment until now."""
        frozen = self.study.get_trials(deepcopy=False)[number]
        now = datetime.now()  # as Optuna notes times
        if since < now:  # the clock may have been set back
            noted = [*TrialNotes.of(frozen).pauses, (since, now)]
            pauses = [[moment.isoformat() for moment in pause] for pause in noted]
            TrialNotes.write(running_trial(self.study, frozen), pauses=pauses)

    def report(self, asked: Asked, record: EpochRecord) -> None:
        """Notes the score of an epoch (1-based)."""
        asked.trial.report(self._value(record.validation), record.epoch)

    @property
    def is_exhausted(self) -> bool:
        """Whether the study has as many trials as it was to have, running ones included."""
        return not self._ordinals.is_left

    def wait(self) -> bool:
        """Waits a moment for trials that other processes may leave; False where every ordinal has its result."""
        return self._ordinals.wait()

    def repeat_reports(self, asked: Asked, number: int, *, upto: int) -> None:
        """Notes of a trial the scores that another has reported, which it goes on with, up to an epoch."""
        for epoch, value in self.study.get_trials(deepcopy=False)[number].intermediate_values.items():
            if epoch <= upto:
                asked.trial.report(value, epoch)

    def is_ours(self, asked: Asked) -> bool:
        """Whether a trial is still this process's to tell: one of several that was away for long may have lost it."""
        return self.study.get_trials(deepcopy=False)[asked.number].state == TrialState.RUNNING

    def is_through(self, asked: Asked, epochs: int, best: EpochRecord | None) -> bool:
        """Whether a trial has run to its end: all of its epochs, or too many of them without a better one."""
        if not self.epochs_left(asked, epochs):
            return True
        patience = self.config.patience if asked.epochs is None else 0
        return bool(patience and best and epochs - best.epoch >= patience)

    def epochs_left(self, asked: Asked, epochs: int) -> int:
        """How many epochs a trial trains at most, after so many."""
        return max(0, (self.config.epochs if asked.epochs is None else asked.epochs) - epochs)

    def should_prune(self, asked: Asked) -> bool:
        """Judges a trial by what it reported last. The article's heads and the last survivor always go on."""
        if asked.ordinal in self._spared:
            return False
        return bool(asked.trial.should_prune()) and not is_last_survivor(self.study, asked.number)

    def complete(self, asked: Asked, best: EpochRecord, *, epochs: int, parameters: int) -> None:
        """Tells a trial that ran to its end; its value is the objective in its best epoch, or the last that counts."""
        if not self.is_ours(asked):
            return
        score = best.validation
        TrialNotes.write(
            asked.trial,
            epochs=epochs,
            best_epoch=best.epoch,
            validation_loss=score.loss,
            validation_accuracy=score.accuracy,
            parameters=parameters,
        )
        self.study.tell(asked.trial, self._value(score))

    def prune(self, asked: Asked, *, epochs: int) -> None:
        """Tells a trial that was pruned after ``epochs`` epochs."""
        if not self.is_ours(asked):
            return
        TrialNotes.write(asked.trial, epochs=epochs)
        self.study.tell(asked.trial, state=TrialState.PRUNED)

    def fail(self, asked: Asked, reason: str, *, epochs: int) -> None:
        """Tells a trial that could not go on."""
        if not self.is_ours(asked):
            return
        TrialNotes.write(asked.trial, epochs=epochs, failure=reason)
        self.study.tell(asked.trial, state=TrialState.FAIL)

    def _value(self, score: Score) -> float:
        """The objective itself: lower is better for a loss."""
        return ranking_score_of(self.study, score.ranking_score)  # which undoes itself
