"""What the trials of a study say: which count, how they scored, which is best."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from heads.scoring import Score

ARTICLE_ORDINAL = 0
"""The article's head comes first in every study."""
INTERRUPTED = "interrupted"
"""The ``failure`` of a trial that a killed run left behind; it is run again as another trial."""


def is_interrupted(trial: FrozenTrial) -> bool:
    """Whether a trial was closed because its run was killed."""
    return bool(trial.user_attrs.get("failure") == INTERRUPTED)


def is_counted(trial: FrozenTrial) -> bool:
    """Whether a trial has finished and counts: not those that were interrupted, which are run again."""
    return trial.state.is_finished() and not is_interrupted(trial)


def score_of(trial: FrozenTrial) -> Score:
    """The score of a completed trial's best epoch."""
    assert trial.value is not None
    return Score(loss=trial.user_attrs["validation_loss"], accuracy=trial.value)


def ranking(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials, best first: accuracy, then validation loss, then number."""
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(completed, key=lambda t: (-score_of(t).accuracy, score_of(t).loss, t.number))


def article_trial(study: optuna.Study) -> FrozenTrial | None:
    """The article's head, if it has run to its end."""
    return next((t for t in ranking(study) if t.user_attrs["ordinal"] == ARTICLE_ORDINAL), None)
