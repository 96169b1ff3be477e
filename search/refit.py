"""A trial with folds is several heads; what leaves the study is one, trained on the rows of all folds."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial

from heads.model import Weights
from heads.solo import retrain
from heads.spec import HeadSpec
from search.config import StudyConfig
from search.data import SearchData
from search.seeds import derive_seed
from search.shelf import Shelf, path_of
from search.trials import article_trial, ranking, score_of


def refit_best(study: optuna.Study, config: StudyConfig, data: SearchData, shelf: Shelf) -> None:
    """Puts one head of the best trial, and of the article's, on the shelf.

    Raises:
        DivergedError: One of them did not come through this time.
    """
    article = article_trial(study)
    for trial in {t.number: t for t in (ranking(study)[0], article) if t}.values():
        if not path_of(shelf.folder, trial.number).is_file():
            spec = HeadSpec.from_dict(trial.user_attrs["spec"])
            shelf.save(trial.number, spec, refit(trial, config, data), value=score_of(trial).accuracy)


def refit(trial: FrozenTrial, config: StudyConfig, data: SearchData) -> Weights:
    """Trains the head of a completed trial on all rows of the folds.

    For as many epochs as the folds found best on the mean, with the learning rates that they had there, on the mean.

    Raises:
        DivergedError: It did not come through this time.
    """
    return retrain(
        HeadSpec.from_dict(trial.user_attrs["spec"]),
        data.train,
        trial.user_attrs["learning_rates"],
        batch_size=config.batch_size,
        seed=derive_seed(config.seed, "refit", trial.user_attrs["ordinal"]),
        plan_seed=derive_seed(config.seed, "batches"),
    )
