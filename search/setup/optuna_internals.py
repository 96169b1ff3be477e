"""Optuna's names that it does not promise to keep: what is used of them, in one place.

``tests/search/setup/test_optuna_internals.py`` says which one an upgrade has changed.
"""

from __future__ import annotations

import optuna
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, Trial

__all__ = ["FrozenStudy", "id_of_study", "id_of_trial", "running_trial"]


def running_trial(study: optuna.Study, trial: FrozenTrial) -> Trial:
    """Returns a trial of the record as one that can be reported to and told: ``ask`` only gives out new ones."""
    return Trial(study, id_of_trial(trial))


def id_of_trial(trial: FrozenTrial) -> int:
    """Returns a trial's number in its storage, which is not the one in its study."""
    return trial._trial_id


def id_of_study(study: FrozenStudy) -> int:
    """Returns a study's number in its storage."""
    return study._study_id
