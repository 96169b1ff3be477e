"""How many heads are trained again, how often and how long: as much as the search itself is worth.

Repeats decide between a few heads. Where the search was small, five heads from five seeds each would take longer than
it; so what the user left open follows from the trial-epochs that were trained, and from the epochs that the finalists'
own trials needed. Nothing but the record decides, so a study that goes on decides alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from features.runtime.text import counted
from search.record.results import FinalistPlan
from search.setup.config import StudyConfig
from search.setup.left_open import LEAST_REPEATS, MOST_FINALISTS, MOST_REPEATS, SHARE, SHARE_IN_WORDS
from search.trials.notes import TrialNotes
from search.trials.ranking import finalists_of, is_article, is_counted

_RUNS_OF_FOLDS = 2
"""Runs of all folds, at most: an average of a head's runs, which may be what is recommended, takes two."""
_FOR_RUNS = 3
"""Heads, at least, for which a second run of all folds is worth more than other heads."""


@dataclass(frozen=True)
class RepeatPlan:
    """What the repeats are to be.

    Attributes:
        trials: Whose heads are trained again, each once: the best, and the article's behind them where it is not one of
            them.
        repeats: Seeds of each, at least; with folds each is of one fold.
        runs: Trainings of each: with folds a run is a head for each of them.
        searched: Trial-epochs of the search.
        chosen: Whether something was left open, and so follows from the record.
    """

    trials: Sequence[FrozenTrial]
    repeats: int
    runs: int
    searched: int
    chosen: bool

    @property
    def epochs(self) -> list[int]:
        """Epochs of a run of each finalist: those that its trial needed, up to its best one."""
        return [TrialNotes.of(trial).best_epoch for trial in self.trials]

    @property
    def trial_epochs(self) -> int:
        """Epochs of all runs together, if none diverges."""
        return self.runs * sum(self.epochs)

    @property
    def fits(self) -> bool:
        """Whether they are within the share of the search's."""
        return self.trial_epochs * SHARE <= self.searched

    @property
    def record(self) -> FinalistPlan:
        """What summary.json says of it."""
        return FinalistPlan(
            heads=len(self.trials),
            runs=self.runs,
            epochs=max(self.epochs),
            trial_epochs=self.trial_epochs,
            search_trial_epochs=self.searched,
            chosen=self.chosen,
            fits=self.fits,
        )


def plan_repeats(study: optuna.Study, config: StudyConfig) -> RepeatPlan:
    """Decides what was left open of the number of finalists and of their repeats.

    From five heads and five seeds on there is by turns a seed and a head fewer, until the runs' epochs are within
    their share of the search's; the least is the best head and the article's (the two best where the article's is the
    best), from two seeds each. With folds there are two runs before, of at least three heads. What is given is obeyed.

    Args:
        study: The study; at least one trial has completed.
        config: What was resolved; ``finalists`` is not 0.
    """
    given = config.finalists, config.repeats
    searched = sum(TrialNotes.of(trial).epochs for trial in study.get_trials(deepcopy=False) if is_counted(trial))
    chosen = None in given
    least = 2 if is_article(finalists_of(study, 1)[0]) else 1
    for heads, repeats in _fewer_and_fewer(*given, least=least, folds=config.folds):
        trials = finalists_of(study, heads)
        plan = RepeatPlan(
            trials=trials,
            repeats=repeats,
            runs=-(-repeats // max(1, config.folds)),
            searched=searched,
            chosen=chosen,
        )
        if plan.fits:
            break
    return plan


def describe_plan(plan: FinalistPlan) -> str:
    """Returns a sentence on what was planned, and why."""
    runs = f"{counted(plan.runs, 'run')} each of at most {counted(plan.epochs, 'epoch')}"
    made = f"{counted(plan.heads, 'head')}, {runs}: {plan.trial_epochs:,} trial-epochs"
    if not plan.chosen:
        return f"{made}; so many heads and runs were asked for."
    if plan.fits:
        return f"{made}, within {SHARE_IN_WORDS} of the search's {plan.search_trial_epochs:,}."
    why = "the least that compares heads" if plan.heads > 1 else "of the only head that there is"
    return f"{made}, {why}; the search had {plan.search_trial_epochs:,}."


def _fewer_and_fewer(
    finalists: int | None, repeats: int | None, *, least: int, folds: int
) -> Iterator[tuple[int, int]]:
    """Yields numbers of heads and seeds, from the most to the least; what is given stays as it is."""
    heads = MOST_FINALISTS if finalists is None else finalists
    seeds = MOST_REPEATS if repeats is None else repeats
    if repeats is None and _RUNS_OF_FOLDS * folds > MOST_REPEATS:
        fewest = _FOR_RUNS if finalists is None else finalists
        yield from ((more, _RUNS_OF_FOLDS * folds) for more in range(heads, fewest - 1, -1))
    yield heads, seeds
    while True:
        fewer_heads = finalists is None and heads > least
        fewer_seeds = repeats is None and seeds > LEAST_REPEATS
        if not fewer_heads and not fewer_seeds:
            return
        if fewer_seeds and (seeds >= heads or not fewer_heads):
            seeds -= 1
        else:
            heads -= 1
        yield heads, seeds
