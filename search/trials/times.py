"""When trials ran. Between a stop, or a kill, and the run that went on from its snapshot, none did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from optuna.trial import FrozenTrial

from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted

Span = tuple[datetime, datetime]
"""Beginning and end, in local time without a zone, as Optuna notes them."""


def spans_of(trial: FrozenTrial) -> list[Span]:
    """Returns when a finished trial was under way, in order: its time without the pauses of its study."""
    begun, ended = trial.datetime_start, trial.datetime_complete
    if begun is None or ended is None:
        return []
    spans = []
    for since, until in _merged([*TrialNotes.of(trial).pauses, (ended, ended)]):
        if begun < (end := min(since, ended)):
            spans.append((begun, end))
        begun = max(begun, until)
    return spans


def seconds_of(trial: FrozenTrial) -> float | None:
    """Returns the seconds in which a finished trial was under way; None where its times are not known."""
    begun, ended = trial.datetime_start, trial.datetime_complete
    return None if begun is None or ended is None else _seconds(spans_of(trial))


def search_seconds(trials: Sequence[FrozenTrial]) -> float:
    """Returns the seconds in which at least one of the trials that count was under way."""
    return _seconds(_merged(span for trial in trials if is_counted(trial) for span in spans_of(trial)))


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Joins what overlaps, in order."""
    merged: list[Span] = []
    for since, until in sorted(spans):
        if merged and since <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], until)
        else:
            merged.append((since, until))
    return merged


def _seconds(spans: Iterable[Span]) -> float:
    return sum((until - since).total_seconds() for since, until in spans)
