"""Which trials become finalists: some for what they are worth alone, the others for what they add to an average.

The best of a study are often near neighbours, as the sampler draws where it has found good heads, and an average of
heads that err on the same rows gains nothing. So half of the finalists are the best by value, one of which is to be the
single winner, and the others are picked one by one, each the one with which the average is the most likely: forward
selection from a library of models (Caruana et al. 2004, "Ensemble selection from libraries of models"), on validation
rows that none of the heads was trained on. What the average is worth is judged later by repeats from other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial

from search.finish.likelihoods import Likelihoods
from search.trials.ranking import is_article, ranking, with_article

_SMALLEST = 1e-7


@dataclass(frozen=True)
class Picked:
    """Finalists.

    Attributes:
        trials: The best by value, then those for the average in the order in which they were picked, then the article's
            where it is none of them.
        added: Numbers of those for the average.
    """

    trials: Sequence[FrozenTrial]
    added: tuple[int, ...]


def pick_finalists(study: optuna.Study, count: int, likelihoods: Likelihoods | None) -> Picked:
    """Picks finalists.

    Args:
        study: At least one trial has completed.
        count: How many, the article's not counted where it is none of them.
        likelihoods: What the trials' heads made of the validation rows; without it, and where nothing is known of the
            trials, the best by value are picked.

    Raises:
        InputError: What is known of a trial is damaged.
    """
    ranked = ranking(study)
    best = ranked[: max(1, count // 2)]
    known = likelihoods.read(ranked) if likelihoods is not None and count > len(best) else {}
    added: list[FrozenTrial] = []
    if likelihoods is not None and all(trial.number in known for trial in best):
        # The article's head is repeated in any case, and stays out of the average unless it is the best of all.
        others = [trial for trial in ranked[len(best) :] if trial.number in known and not is_article(trial)]
        added = _added(best, others, count, known, likelihoods.weights)
    chosen = {trial.number for trial in (*best, *added)}
    rest = [trial for trial in ranked if trial.number not in chosen][: count - len(chosen)]
    return Picked(with_article(study, [*best, *rest, *added]), tuple(trial.number for trial in added))


def _added(
    start: Sequence[FrozenTrial],
    others: Sequence[FrozenTrial],
    count: int,
    known: Mapping[int, npt.NDArray[np.float32]],
    weights: npt.NDArray[np.float64],
) -> list[FrozenTrial]:
    """Of the others those with which the average of all is the most likely, one by one, until there are ``count``."""
    total = np.sum([known[trial.number] for trial in start], axis=0, dtype=np.float64)
    left, added = list(others), list[FrozenTrial]()
    while left and len(start) + len(added) < count:
        heads = len(start) + len(added) + 1
        likely = [_mean_log((total + known[trial.number]) / heads, weights) for trial in left]
        best = left.pop(int(np.argmax(likely)))  # of equal ones the best by value
        total = total + known[best.number]
        added.append(best)
    return added


def _mean_log(likelihoods: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float:
    return float(np.mean(weights * np.log(np.maximum(likelihoods, _SMALLEST))))
