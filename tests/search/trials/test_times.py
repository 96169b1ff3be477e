"""When trials were under way, against counting minutes one by one."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.trials.notes import TrialNotes
from search.trials.times import search_seconds, seconds_of, spans_of

BEGUN, MINUTES = datetime(2026, 11, 29, 23, 50), 30


def at(minute: int) -> datetime:
    return BEGUN + timedelta(minutes=minute)


minutes = st.integers(0, MINUTES)
spans = st.tuples(minutes, minutes).map(sorted)
timed = st.tuples(spans, st.lists(spans, max_size=4), st.booleans())


def trial_of(span: list[int], pauses: list[list[int]], *, interrupted: bool) -> FrozenTrial:
    told = [[at(minute).isoformat() for minute in pause] for pause in pauses]
    trial = create_trial(state=TrialState.FAIL, user_attrs=TrialNotes.as_attributes(pauses=told))
    if interrupted:
        trial.user_attrs["failure"] = "interrupted"
    trial.datetime_start, trial.datetime_complete = at(span[0]), at(span[1])
    return trial


def counted(span: list[int], pauses: list[list[int]]) -> set[int]:
    return set(range(*span)).difference(*(range(*pause) for pause in pauses))


@given(st.lists(timed, max_size=5))
def test_seconds_are_those_in_which_something_ran(told):
    trials = [trial_of(span, pauses, interrupted=interrupted) for span, pauses, interrupted in told]
    for trial, (span, pauses, _) in zip(trials, told, strict=True):
        assert seconds_of(trial) == 60 * len(counted(span, pauses))
        found = spans_of(trial)
        assert found == sorted(found)
        assert all(since < until for since, until in found)
    at_all = set().union(*(counted(span, pauses) for span, pauses, interrupted in told if not interrupted))
    assert search_seconds(trials) == 60 * len(at_all)


def test_of_a_trial_without_times_nothing_is_known():
    trial = create_trial(state=TrialState.FAIL)
    trial.datetime_start = None
    assert (seconds_of(trial), spans_of(trial), search_seconds([trial])) == (None, [], 0)
