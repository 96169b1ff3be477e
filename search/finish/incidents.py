"""What happened in a study that its numbers do not show, in a line each: said once at its end, kept in its summary."""

from __future__ import annotations

from collections.abc import Iterator

import optuna

from features.runtime.text import counted, listed
from heads.metrics.scoring import Objective
from search.finish.repeat_plan import describe_plan
from search.record.recommended import describe_rule
from search.record.summary import Summary
from search.trials.notes import TrialNotes
from search.trials.ranking import ranking

_NAMED = 8
"""Trials that a line names."""


def incidents(study: optuna.Study, summary: Summary, objective: Objective) -> Iterator[str]:
    """Yields why trials failed, what was run again, and where the choice is not what the trials' values say.

    Args:
        study: The study, ended.
        summary: What was concluded.
        objective: What the study ranks heads by.
    """
    for reason, numbers in summary.failures_by_reason.items():
        yield f"{counted(len(numbers), 'trial')} failed ({listed(numbers, _NAMED)}): {reason}"
    repeats = summary.finalists.cost.interrupted if summary.finalists else 0
    for left, what in ((summary.interrupted, "trial"), (repeats, "repeat")):
        if left:
            shared = any(TrialNotes.of(trial).worker for trial in study.get_trials(deepcopy=False))
            by = "a worker that ended, run again by others" if shared else "a killed run, begun again from the start"
            yield f"{counted(left, what)} left by {by}"
    plan = summary.finalists.plan if summary.finalists else None
    if plan and plan.chosen and not plan.fits:
        yield f"finalists: {describe_plan(plan)}"
    yield from _choice(study, summary)
    if summary.recommendation and len(summary.recommendation.contenders) > 1:
        yield describe_rule(summary.recommendation, objective)
    if summary.test and summary.test.uses > 1:
        yield (
            f"the test rows have been used {summary.test.uses} times, as the study went on after its end: the more"
            " often, the less their score can be believed"
        )


def _choice(study: optuna.Study, summary: Summary) -> Iterator[str]:
    for finalist in summary.finalists.heads if summary.finalists else ():
        if finalist.diverged:
            reasons = f": {'; '.join(finalist.other_failures)}" if finalist.other_failures else ""
            lost = f"{finalist.diverged} of its {finalist.repeats} repeats {finalist.how_lost}"
            yield f"trial {finalist.trial}: {lost}{reasons}"
    first = ranking(study)[0].number
    if summary.best and summary.best.number != first:
        yield f"trial {first} had the best single value; trial {summary.best.number} was chosen, {_why(summary)}"


def _why(summary: Summary) -> str:
    """What the repeats of the chosen trial have before those of the others."""
    if summary.finalists and any(one.diverged for one in summary.finalists.heads):
        return "whose repeats are the best: the fewest diverged or failed, then by the mean"
    return "whose repeats are the best on the mean"
