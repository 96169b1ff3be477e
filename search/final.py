"""The one use of the test rows: by the chosen head, after the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from heads.files import load_head
from heads.metrics import measure
from heads.scoring import predict_probabilities
from search.data import SearchData
from search.shelf import path_of
from search.trials import ranking


def score_winner(
    folder: Path, study: optuna.Study, data: SearchData, earlier: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Scores the best trial's head on the test rows, unless an earlier run of this study did.

    Args:
        folder: The study directory.
        study: The study; at least one trial has completed.
        data: Holds the test rows.
        earlier: What this function returned at the end of the last run, if there was one.

    Returns:
        Trial number, metrics (see ``heads.metrics``) and ``uses``: how many heads these rows have been shown in all, 1
        unless the study was resumed and found another winner. ``None`` where there are no test rows.
    """
    if data.test is None:
        return None
    best = ranking(study)[0]
    if earlier and earlier["trial"] == best.number:
        return earlier
    head = load_head(path_of(folder, best.number))
    probabilities = predict_probabilities(head.model, data.test)
    metrics = measure(probabilities, data.test.labels, data.store.classes)
    return {"trial": best.number, "uses": 1 + (earlier["uses"] if earlier else 0), **metrics.to_dict()}
