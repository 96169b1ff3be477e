"""What the trials of a study say: which count, how they scored, which is best."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from heads.metrics.scoring import Score
from search.trials.notes import TrialNotes

ARTICLE_ORDINAL = 0
"""The article's head comes first in every study; of several stores, that on the first, which others are judged by."""
INTERRUPTED = "interrupted"
"""The ``failure`` of a trial that a killed run left behind; it is run again as another trial."""


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial was closed because its run was killed."""
    return TrialNotes.of(trial).failure == INTERRUPTED


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial has finished and counts: not those that were interrupted, which are run again."""
    return trial.state.is_finished() and not is_interrupted(trial)


def ranking_score_of(study: optuna.Study, value: float) -> float:
    """A value as a number of which more is better: see ``heads.metrics.scoring.Score``."""
    return -value if study.direction == StudyDirection.MINIMIZE else value


def score_of(study: optuna.Study, trial: FrozenTrial) -> Score:
    """The score of a completed trial's best epoch."""
    assert trial.value is not None
    notes = TrialNotes.of(trial)
    return Score(notes.validation_loss, notes.validation_accuracy, ranking_score_of(study, trial.value))


def ranking(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials, best first: value, then validation loss, then number."""
    return _ranked(study, _completed(study))


def _completed(study: optuna.Study) -> list[FrozenTrial]:
    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _ranked(study: optuna.Study, completed: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    lower = study.direction == StudyDirection.MINIMIZE
    return sorted(completed, key=lambda trial: _rank(trial, lower_is_better=lower))


def _rank(trial: FrozenTrial, *, lower_is_better: bool) -> tuple[float, float, int]:
    """What completed trials are sorted by: plain numbers, as all of them are sorted with every one that ends."""
    assert trial.value is not None
    return trial.value if lower_is_better else -trial.value, TrialNotes.of(trial).validation_loss, trial.number


def article_ordinals(stores: Collection[str]) -> range:
    """Returns the ordinals of the article's head: on each store that trials name, in their order."""
    return range(ARTICLE_ORDINAL, ARTICLE_ORDINAL + (len(stores) or 1))


def is_article(trial: FrozenTrial) -> bool:
    """Whether a trial is the article's head, on the first store of several."""
    return TrialNotes.of(trial).ordinal == ARTICLE_ORDINAL


def article_trial(study: optuna.Study) -> FrozenTrial | None:
    """The article's head, on the first store of several, if it has run to its end."""
    return next(iter(_ranked(study, [trial for trial in _completed(study) if is_article(trial)])), None)


def finalists_of(study: optuna.Study, count: int) -> list[FrozenTrial]:
    """Returns the best trials of different heads, and the article's behind them where it is not one of them.

    Where a space has few heads the same one is drawn again and again. Its trials differ by their seeds alone, and to
    compare them would be to choose the luckiest: each head is there once, by its best trial, the article's by its own.
    Heads that differ by what has no effect on them are the same one.
    """
    article = article_trial(study)
    own = {_head_of(article): article} if article else {}
    found: dict[tuple[str, str], FrozenTrial] = {}
    for trial in ranking(study):
        if len(found) == count:
            break
        head = _head_of(trial)
        found.setdefault(head, own.get(head, trial))
    return list((found | own).values())


def _head_of(trial: FrozenTrial) -> tuple[str, str]:
    """What stands for a trial's head, and for the features that it takes."""
    notes = TrialNotes.of(trial)
    return notes.head.in_effect.identity, notes.store
