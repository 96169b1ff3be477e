"""Trials out of a record from elsewhere, checked before anything of them is believed."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import AfterValidator, BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted


def _is_head(data: dict[str, Any]) -> dict[str, Any]:
    HeadSpec.from_dict(data)
    return data


def _is_own_head(data: dict[str, Any]) -> dict[str, Any]:
    OwnSpec.from_dict(data)
    return data


def _are_pauses(told: list[list[str]]) -> list[list[str]]:
    for since, until in told:
        times = datetime.fromisoformat(since), datetime.fromisoformat(until)
        if times[0].tzinfo is not None or times[1].tzinfo is not None or times[0] > times[1]:
            raise ValueError(f"expected an earlier and a later time without a zone, found {since!r} and {until!r}")
    return told


class _Notes(BaseModel):
    """Types of what ``search.trials.notes`` notes, where it is there."""

    model_config = ConfigDict(strict=True)

    ordinal: NonNegativeInt | None = None
    rerun_of: NonNegativeInt | None = None
    worker: str | None = None
    spec: Annotated[dict[str, Any], AfterValidator(_is_head)] | None = None
    own: Annotated[dict[str, Any], AfterValidator(_is_own_head)] | None = None
    store: str | None = None
    first_epoch: NonNegativeInt | None = None
    learning_rates: list[float] | None = None
    epochs: NonNegativeInt | None = None
    best_epoch: PositiveInt | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    parameters: NonNegativeInt | None = None
    failure: str | None = None
    pauses: Annotated[list[list[str]], AfterValidator(_are_pauses)] | None = None


_NEEDED = {
    TrialState.RUNNING: (),
    TrialState.WAITING: (),
    TrialState.FAIL: (),
    TrialState.PRUNED: ("ordinal", "spec", "epochs"),
    TrialState.COMPLETE: (
        *("ordinal", "spec", "epochs", "best_epoch", "validation_loss", "validation_accuracy", "parameters"),
    ),
}
"""What a trial has, once it has come so far."""


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
                raise ValueError(f"trial {trial.number}: expected a place of its own, found {ordinal}, of another, too")
            ordinals.add(ordinal)


def _check(trial: FrozenTrial) -> None:
    notes = _Notes.model_validate(trial.user_attrs)
    if notes.rerun_of is not None and notes.rerun_of >= trial.number:
        raise ValueError(f"expected to run a trial again, found {notes.rerun_of}, which is none")
    needed = _NEEDED[trial.state]
    if trial.state == TrialState.FAIL and is_counted(trial):
        needed = ("ordinal",)
    for name in needed:
        if getattr(notes, name) is None and not (name == "spec" and notes.own is not None):
            raise ValueError(f"expected {name}, found none")
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
