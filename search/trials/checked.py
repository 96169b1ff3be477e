"""Trials out of a record from elsewhere, checked before anything of them is believed."""

from __future__ import annotations

import math

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted, is_interrupted


def check_trials(study: optuna.Study) -> None:
    """Makes sure that the trials of a study say what ours do.

    Raises:
        ValueError: One does not; its number is named.
    """
    trials = study.get_trials(deepcopy=False)
    ordinals: set[int] = set()
    for trial in trials:
        try:
            _check(trial)
        except (ValueError, TypeError, OverflowError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else f"{error}"
            raise ValueError(f"trial {trial.number}: {reason}") from error
        if is_counted(trial):
            ordinal = TrialNotes.of(trial).ordinal
            if ordinal in ordinals:
                raise ValueError(f"trial {trial.number}: expected an ordinal of its own, found another's, {ordinal}")
            ordinals.add(ordinal)


def _check(trial: FrozenTrial) -> None:
    notes = TrialNotes.of(trial)
    notes.check()
    if notes.rerun_of is not None and notes.rerun_of >= trial.number:
        raise ValueError(f"expected to run a trial again, found {notes.rerun_of}, which is none")
    lacking = notes.lacks(trial.state)
    if lacking is not None and not (trial.state == TrialState.FAIL and is_interrupted(trial)):
        raise ValueError(f"expected {lacking}, found none")
    values = trial.values if trial.values is not None else []
    if trial.state == TrialState.COMPLETE and (len(values) != 1 or not _is_number(values[0], finite=True)):
        raise ValueError(f"expected one value, found {values}")
    for epoch, value in trial.intermediate_values.items():
        if type(epoch) is not int or epoch < 0 or not _is_number(value):
            raise ValueError(f"expected a number in an epoch, found {value!r} in {epoch!r}")
    begun, ended = trial.datetime_start, trial.datetime_complete
    if any(time is not None and time.tzinfo is not None for time in (begun, ended)):
        raise ValueError("expected times without a zone")
    if trial.state.is_finished() and ended is None:
        raise ValueError("expected the time of its end, found none")
    for name, value in trial.params.items():
        whole = value is None or isinstance(value, bool | str) or _is_number(value, finite=True)
        if name not in trial.distributions or not whole:
            raise ValueError(f"{name}: expected a value of its range, found {value!r}")


def _is_number(value: object, *, finite: bool = False) -> bool:
    return type(value) in (int, float) and (not finite or math.isfinite(value))  # type: ignore[arg-type]
