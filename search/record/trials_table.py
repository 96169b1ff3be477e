"""The trials of a study as a table, for people who look at them with pandas."""

from __future__ import annotations

from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from search.record.study_record import StudyRecord, epochs_of
from search.trials.notes import TrialNotes
from search.trials.ranking import is_article

_WHOLE = ("best_epoch", "parameters")
"""Whole numbers that some trials do not have."""


def trials_table(record: StudyRecord) -> pd.DataFrame:
    """Returns one row for each trial in the order of their numbers, those that were interrupted and run again left out.

    The columns: ``number``, ``state`` (``complete``, ``pruned``, ``fail``, ``running``, ``waiting``), ``value`` (of a
    complete trial: the objective of its best epoch, on validation rows), ``epochs``, ``best_epoch``, ``is_article``,
    ``parameters`` (how many numbers the head has), then each field of ``HeadSpec``, then ``validation_accuracy``,
    ``validation_loss``, ``started`` (local time), ``seconds`` and ``failure``.
    """
    table = pd.DataFrame([_row(trial) for trial in record.trials])
    for name in _WHOLE:
        if name in table:
            table[name] = table[name].astype("Int64")
    return table


def _row(trial: FrozenTrial) -> dict[str, Any]:
    notes, completed = TrialNotes.of(trial), trial.state == TrialState.COMPLETE
    spec = notes.spec.to_dict() if notes.has_spec else {}
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if completed else None,
        "epochs": epochs_of(trial),
        "best_epoch": notes.best_epoch if completed else None,
        "is_article": notes.has_ordinal and is_article(trial),
        "parameters": notes.parameters if completed else None,
        **{name: value for name, value in spec.items() if name != "schema"},
        "validation_accuracy": notes.validation_accuracy if completed else None,
        "validation_loss": notes.validation_loss if completed else None,
        "started": trial.datetime_start,
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "failure": notes.failure,
    }
