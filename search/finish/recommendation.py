"""What a study recommends: the simplest of four things that is not shown to be worse than the best of them.

The article's head, the single winner, the average of the winner's own repeats and the average of all finalists are
compared on the validation rows, as their repeats called them: with folds every row is called by heads that were not
trained on it. The best of several is too good by luck, and an average of many heads is harder to keep than one head. So
the rule, fixed beforehand: the simplest whose score is within one standard error of the best one's, where the error is
that of their difference row by row, with patients as units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.rows.split import groups_of
from heads.metrics.calibration import with_temperature
from heads.metrics.intervals import is_within, paired_difference
from heads.metrics.scoring import (
    Objective,
    Probabilities,
    mean_probabilities,
    scores_rows_by_logarithms,
    true_logarithms,
)
from search.finish.calibration import temperature_of
from search.finish.repeat_predictions import of_each_seed
from search.finish.repeats import Finalist
from search.record.recommended import ARTICLE, ENSEMBLE, REPEATS, WINNER, Contender, Recommendation
from search.setup.data import SearchData
from search.setup.export_options import Kind


@dataclass(frozen=True)
class Entrant:
    """One of the things that are compared.

    Attributes:
        kind: See ``search.record.recommended.Contender``.
        trials: Whose heads it is made of.
        copies: Heads of each of these.
        called: What heads like it make of the validation rows, (rows, classes) each: of a single head one for each of
            its repeats.
    """

    kind: Kind
    trials: tuple[int, ...]
    copies: int
    called: Sequence[Probabilities]


def entrants(finalists: Sequence[Finalist], members: Sequence[int], copies: Mapping[int, int]) -> list[Entrant]:
    """Returns what there is to compare, the simplest first.

    Args:
        finalists: Best first; the first one is the winner.
        members: Trials whose heads the average of the finalists is made of; none where no file can hold it.
        copies: Heads of each trial that can be averaged, by its number: those that its refit left, or one where no file
            can hold them together. Those of others diverged.
    """
    by_trial = {one.trial: one for one in finalists if one.probabilities and one.trial in copies}
    article = next((one for one in by_trial.values() if one.is_article), None)
    found = [] if article is None else [Entrant(ARTICLE, (article.trial,), 1, article.probabilities)]
    winner = by_trial.get(finalists[0].trial) if finalists else None
    if winner is not None:
        if not winner.is_article:
            found.append(Entrant(WINNER, (winner.trial,), 1, winner.probabilities))
        if copies[winner.trial] > 1 and len(winner.probabilities) > 1:
            average = mean_probabilities(winner.probabilities)
            found.append(Entrant(REPEATS, (winner.trial,), copies[winner.trial], [average]))
    together = [by_trial[number] for number in members if number in by_trial]
    if len(together) > 1 and len(together) == len(members):
        found.append(Entrant(ENSEMBLE, tuple(members), 1, of_each_seed(one.probabilities for one in together)))
    return found


def recommend(compared: Sequence[Entrant], data: SearchData, objective: Objective) -> Recommendation | None:
    """Applies the rule.

    Args:
        compared: See ``entrants``.
        data: Whose validation rows were called.
        objective: What the study ranks heads by. Rows are scored by it: right or wrong, as much as their class counts,
            or by the logarithm of the true class' probability, which stands for the AUC, too, as that has no rows:
            each is compared with the temperature that it leaves with.

    Returns:
        What is recommended; None where there is nothing to compare.
    """
    if not compared:
        return None
    labels = data.validation_labels
    temperatures = [temperature_of(one.called, data) for one in compared]
    scored = _scored(data, objective)
    scores = [
        np.mean(
            [row_scores(called[scored], labels[scored], objective, temperature=temperature) for called in one.called],
            axis=0,
        )
        for one, temperature in zip(compared, temperatures, strict=True)
    ]
    best = max(range(len(compared)), key=lambda index: (scores[index].mean(), -index))
    patients = _patients(data)[scored]
    contenders = []
    for one, mine, temperature in zip(compared, scores, temperatures, strict=True):
        difference, error = paired_difference(scores[best], mine, patients)
        contenders.append(
            Contender(
                kind=one.kind,
                trials=one.trials,
                copies=one.copies,
                value=float(mine.mean()),
                behind=difference,
                error=error,
                temperature=temperature,
            )
        )
    chosen = next(one for one in contenders if is_within(one.behind, one.error))
    return Recommendation(kind=chosen.kind, contenders=tuple(contenders))


def row_scores(
    called: Probabilities, labels: npt.NDArray[np.int32], objective: Objective, *, temperature: float | None = None
) -> npt.NDArray[np.float64]:
    """Scores rows one by one, higher is better; of ``balanced_accuracy`` the mean is the study's.

    Args:
        called: (rows, classes).
        labels: (rows,) true classes.
        objective: As in ``recommend``.
        temperature: What calibrates ``called``; nothing for right and wrong, as it changes no predicted class.
    """
    if scores_rows_by_logarithms(objective):
        return true_logarithms(with_temperature(called, temperature), labels)
    right: npt.NDArray[np.float64] = (called.argmax(axis=1) == labels).astype(np.float64)
    if objective == "accuracy":
        return right
    counts = np.bincount(labels)
    return np.asarray(right * (len(labels) / (np.count_nonzero(counts) * counts[labels])))


def _scored(data: SearchData, objective: Objective) -> npt.NDArray[np.bool_]:
    """Which of the validation rows are scored.

    A head gives a class that it was not trained on next to nothing. How little that is says nothing of what leaves,
    which was trained on all classes, and in logarithms a few such rows outweigh all others. As right or wrong they are
    alike for every head.
    """
    known = data.has_known_class
    return known if scores_rows_by_logarithms(objective) and known.any() else np.ones(len(known), bool)


def _patients(data: SearchData) -> npt.NDArray[np.int64]:
    rows = np.concatenate(data.folds) if data.folds else data.validation.rows
    return groups_of(data.validation.store.patients[rows])
