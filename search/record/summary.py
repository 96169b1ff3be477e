"""``summary.json``: what a study found, for people and programs."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from features.runtime.files import write_json
from heads.model.spec import HeadSpec
from search.setup.config import StudyConfig
from search.trials.ranking import article_trial, is_counted, ranking

FILE = "summary.json"


def summarise(study: optuna.Study, config: StudyConfig, *, chosen: int | None = None) -> dict[str, Any]:
    """Returns the content of summary.json; what ``search.finish.conclusion`` adds is still empty.

    Args:
        study: The study.
        config: What was resolved.
        chosen: Number of the trial whose head the repeats chose; the best by its value where they have not.
    """
    trials = study.get_trials(deepcopy=False)
    counted = [trial for trial in trials if is_counted(trial)]
    seconds = search_seconds(trials)
    trial_epochs = sum(trial.user_attrs.get("epochs", 0) for trial in counted)
    ranked = ranking(study)
    best = next((trial for trial in ranked if trial.number == chosen), next(iter(ranked), None))
    article = article_trial(study)
    return {
        "name": config.name,
        "objective": f"validation {config.objective}",
        "trials": len(counted),
        "completed": _count(counted, TrialState.COMPLETE),
        "pruned": _count(counted, TrialState.PRUNED),
        "failed": _count(counted, TrialState.FAIL),
        "interrupted": len([t for t in trials if t.state.is_finished()]) - len(counted),
        "trial_epochs": trial_epochs,
        "search_seconds": round(seconds, 3),
        "trial_epochs_per_second": round(trial_epochs / seconds, 4) if seconds else None,
        "best": _describe(best) if best else None,
        "article": _describe(article) if article else {"number": None, "value": None},
        "finalists": None,
        "ensemble": None,
        "refit": None,
        "calibration": None,
        "test": None,
        "verdict": None,
        "split": {name: config.split[name] for name in ("counts", "patients", "identity")},
        "store": config.stores["features"],
        "seed": config.seed,
        "engine": config.engine,
        "failures": {str(t.number): t.user_attrs["failure"] for t in counted if "failure" in t.user_attrs},
    }


def read_summary(folder: Path) -> dict[str, Any]:
    """Returns the summary of an earlier run, or an empty one."""
    path = folder / FILE
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return data


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes summary.json."""
    write_json(folder / FILE, summary)


def search_seconds(trials: list[FrozenTrial]) -> float:
    """Seconds in which at least one trial ran: the union of the trials' times, so interruptions do not count."""
    spans = sorted(
        (t.datetime_start, t.datetime_complete)
        for t in trials
        if t.datetime_start and t.datetime_complete and is_counted(t)
    )
    total, until = 0.0, datetime.min
    for start, end in spans:
        since = max(start, until)
        if end > since:
            total += (end - since).total_seconds()
            until = end
    return total


def _describe(trial: FrozenTrial) -> dict[str, Any]:
    spec = HeadSpec.from_dict(trial.user_attrs["spec"])
    params = {name: value for name, value in spec.to_dict().items() if name != "schema"}
    return {
        "number": trial.number,
        "value": trial.value,
        "validation_loss": trial.user_attrs["validation_loss"],
        "validation_accuracy": trial.user_attrs["validation_accuracy"],
        "best_epoch": trial.user_attrs["best_epoch"],
        "params": params,
        "parameters": trial.user_attrs["parameters"],
    }


def _count(trials: list[FrozenTrial], state: TrialState) -> int:
    return sum(trial.state == state for trial in trials)
