"""Tables of a study's trials, for notebooks: pandas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial

from features.runtime.text import told_apart
from heads.model.spec import HeadSpec
from search.record.study_record import StudyRecord, epochs_of, state_of
from search.setup.space import FEATURES
from search.trials.notes import TrialNotes
from search.trials.times import seconds_of

_RESULTS = {
    "state": "string",
    "value": "float64",
    "epochs": "int64",
    "best_epoch": "Int64",
    "is_article": "bool",
    "seconds": "float64",
}
"""What comes first, and its types; of what has not been drawn or measured a value is missing."""
_OF_STORES = {FEATURES: "string", "milliseconds": "float64"}
"""What comes after that in a study of several stores."""


def trials_frame(record: StudyRecord) -> pd.DataFrame:
    """Returns a study's trials as a table: one row a trial, in their order, indexed by their number.

    Those that were interrupted and run again are left out; those that run are there.

    Args:
        record: The study.

    Returns:
        ``state`` (completed, pruned, failed or running), ``value`` (the objective in the best epoch), ``epochs``
        trained so far, ``best_epoch`` (1-based), ``is_article`` (whether it is the article's head, which has a trial on
        each store), ``seconds`` under way; of several stores ``features``, the name of the trial's, and
        ``milliseconds``, what an image costs with its head, once that was measured; then a column for each field of
        ``heads.model.spec.HeadSpec``, or with own heads for each parameter that one of them suggested, as
        ``param.NAME`` where a result is called so; then ``failure``, why a trial could not go on.
    """
    several = any(record.config.stores_by_name)
    results = _RESULTS | (_OF_STORES if several else {})
    names = {field.name: field.name for field in fields(HeadSpec)}
    if record.config.head:
        suggested = dict.fromkeys(name for trial in record.trials for name in trial.params)
        names = told_apart(suggested, {"number", *_RESULTS, *_OF_STORES, "failure"}, "param.{}")
    rows = [_row(trial, record, names) for trial in record.trials]
    columns = ["number", *results, *names.values(), "failure"]
    frame = pd.DataFrame(rows, columns=columns).set_index("number")
    return frame.astype({**results, "failure": "string"})


def _row(trial: FrozenTrial, record: StudyRecord, names: Mapping[str, str]) -> dict[str, Any]:
    cost = record.summary.cost_of_use
    notes = TrialNotes.of(trial)
    head = trial.params if record.config.head else vars(notes.spec) if notes.has_spec else {}
    completed = state_of(trial) == "completed"
    return {
        "number": trial.number,
        "state": state_of(trial),
        "value": trial.value if completed else None,
        "epochs": epochs_of(trial),
        "best_epoch": notes.best_epoch if completed else None,
        "is_article": record.is_article_on_its_store(trial),
        "seconds": seconds_of(trial),
        FEATURES: notes.store or None,
        "milliseconds": cost.of(trial.number, notes.store) if cost else None,
        **{column: head[name] for name, column in names.items() if name in head},
        "failure": notes.failure,
    }
