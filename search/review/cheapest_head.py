"""Which head to take where time counts: the cheapest that is within one standard error of the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from heads.metrics.intervals import is_within
from heads.metrics.scoring import is_share, ranking_score
from search.record.results import FinalistRecord
from search.record.study_record import StudyRecord
from search.review.plotting import value_of
from search.trials.notes import TrialNotes

EQUAL = 1.02
"""Times that differ by no more than this factor are the same, as far as they can be measured."""


@dataclass(frozen=True)
class CostedTrial:
    """A completed trial of which it is known what an image costs.

    Attributes:
        trial: The trial.
        store: Name of the store that it was trained on.
        milliseconds: Of an image, backbone and head, in all views.
    """

    trial: FrozenTrial
    store: str
    milliseconds: float


@dataclass(frozen=True)
class CheapestHead:
    """The cheapest head that is not shown to be worse than the best, and that one.

    Attributes:
        best: The best head.
        cheapest: The cheapest head whose value is within ``margin`` of the best's, of several at the same cost the best
            one; it may be the best itself.
        margin: One standard error of the best's value.
    """

    best: CostedTrial
    cheapest: CostedTrial
    margin: float


def costed_trials(record: StudyRecord) -> list[CostedTrial]:
    """Returns the completed trials, best first, as far as it is known what they cost."""
    cost = record.summary.cost_of_use
    if cost is None:
        return []
    named = ((trial, TrialNotes.of(trial).store) for trial in record.ranked)
    priced = ((trial, store, cost.of(trial.number, store)) for trial, store in named)
    return [
        CostedTrial(trial, store, price) for trial, store, price in priced if price is not None and 0 < price < math.inf
    ]


def cheapest_head(record: StudyRecord) -> CheapestHead | None:
    """Returns the cheapest head within one standard error of the best; None where either is not known.

    Finalists are compared by the means of their repeats, among which no seed was chosen; other trials, whose values are
    too high, with the best one's value as a trial, which is too high as well.
    """
    heads = costed_trials(record)
    if not heads or heads[0].trial.number != record.ranked[0].number:
        return None
    best = heads[0]
    margin = standard_error(record, best.trial)
    if margin is None:
        return None
    means = {one.trial: one.mean for one in record.finalists if one.mean is not None}

    def behind(head: CostedTrial) -> float:
        number = head.trial.number
        if number in means and best.trial.number in means:
            value, best_value = means[number], means[best.trial.number]
        else:
            value, best_value = value_of(head.trial), value_of(best.trial)
        return ranking_score(best_value - value, record.config.objective)

    within = [head for head in heads if is_within(behind(head), margin)]
    least = min(head.milliseconds for head in within)
    cheapest = next(head for head in within if head.milliseconds <= EQUAL * least)
    return CheapestHead(best, cheapest, margin)


def standard_error(record: StudyRecord, trial: FrozenTrial) -> float | None:
    """Returns one standard error of a trial's value; None where nothing is known of it.

    Of the mean of its repeats where it is a finalist; of a share of rows the error that these rows have, or of a mean
    of classes' shares that of the classes' rows, where it is larger: seeds say nothing of how few rows there are.
    """
    finalist = next((one for one in record.finalists if one.trial == trial.number), None)
    errors = []
    if finalist is not None and finalist.sd and finalist.through > 1:
        errors.append(finalist.sd / math.sqrt(finalist.through))
    if is_share(record.config.objective) and record.judging_rows:
        share, alike = _value(finalist, trial), _rows_counted_alike(record)
        variance = max(0.0, share * (1 - share))
        errors.append(math.sqrt(sum(variance / rows for rows in alike)) / len(alike))
    return max(errors, default=None)


def _rows_counted_alike(record: StudyRecord) -> Sequence[int]:
    """Sizes of the groups of rows of whose shares the objective is the mean: all rows, or those of each class.

    Of each class the share is taken to be the mean, as that is all that a trial notes. Where the classes' rows are not
    known either, the error is that of classes of equal size, the least there is.
    """
    if record.config.objective == "balanced_accuracy":
        return [rows for rows in record.judging_rows_by_class if rows] or [record.judging_rows]
    return [record.judging_rows]


def _value(finalist: FinalistRecord | None, trial: FrozenTrial) -> float:
    return finalist.mean if finalist is not None and finalist.mean is not None else value_of(trial)
