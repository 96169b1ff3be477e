"""The trials of a study as a table."""

from __future__ import annotations

from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial

from search.record.study_record import StudyRecord, epochs_of
from search.trials.ranking import ARTICLE_ORDINAL

_WHOLE = ("best_epoch", "parameters")
"""Whole numbers that some trials do not have."""


def trials_table(record: StudyRecord) -> pd.DataFrame:
    """Returns one row for each trial in the order of their numbers, those that were interrupted and run again left out.

    The columns: ``number``, ``state`` (``complete``, ``pruned``, ``fail``, ``running``, ``waiting``), ``value`` (the
    objective of the best epoch on validation rows, NaN where it has none), ``epochs``, ``best_epoch``, ``is_article``,
    ``parameters`` (how many numbers the head has), then each field of ``HeadSpec``, then ``validation_accuracy``,
    ``validation_loss``, ``started`` (local time), ``seconds`` (until now for one that is running) and ``failure``.
    """
    table = pd.DataFrame([_row(trial) for trial in record.trials])
    for name in _WHOLE:
        if name in table:
            table[name] = table[name].astype("Int64")
    return table


def _row(trial: FrozenTrial) -> dict[str, Any]:
    told = trial.user_attrs
    spec = {name: value for name, value in told.get("spec", {}).items() if name != "schema"}
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state.is_finished() else None,
        "epochs": epochs_of(trial),
        "best_epoch": told.get("best_epoch"),
        "is_article": told.get("ordinal") == ARTICLE_ORDINAL,
        "parameters": told.get("parameters"),
        **spec,
        "validation_accuracy": told.get("validation_accuracy"),
        "validation_loss": told.get("validation_loss"),
        "started": trial.datetime_start,
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "failure": told.get("failure"),
    }
