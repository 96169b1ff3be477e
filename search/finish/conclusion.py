"""The end of a study: finalists repeated, one chosen, trained on all rows, calibrated, and shown the test rows once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from features.runtime.errors import BottleneckError
from heads.files.head_file import load_head
from heads.metrics.calibration import describe_calibration, fit_temperature
from heads.metrics.scoring import Probabilities, average_views, predict_probabilities
from heads.model.spec import HeadSpec
from search.finish.checkpoints import TopCheckpoints
from search.finish.held_out import score_on_test
from search.finish.refit import Candidate, Refit, refit
from search.finish.repeats import Finalist, run_repeats
from search.finish.verdict import verdict
from search.record.head_files import find_head, path_of
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.setup.space import Space
from search.trials.ranking import article_trial, finalists_of, ranking


@dataclass(frozen=True)
class Choice:
    """What the repeats decided.

    Attributes:
        trial: Number of the chosen trial.
        finalists: Best first; empty where none were asked for.
        cost: ``trial_epochs`` and ``seconds`` of the repeats.
    """

    trial: int
    finalists: Sequence[Finalist]
    cost: dict[str, Any] | None


def choose(
    folder: Path, study: optuna.Study, config: StudyConfig, space: Space, data: SearchData, *, snapshot_every: float
) -> Choice:
    """Repeats the finalists and chooses the one with the best mean; without finalists the best trial.

    See ``search.finish.repeats.run_repeats`` for the arguments.
    """
    if not config.finalists:
        return Choice(ranking(study)[0].number, (), None)
    finalists, cost = run_repeats(folder, study, config, space, data, snapshot_every=snapshot_every)
    best = finalists[0].trial if finalists[0].sound else ranking(study)[0].number
    return Choice(best, finalists, cost)


def conclude(choice: Choice, checkpoints: TopCheckpoints, earlier: dict[str, Any]) -> dict[str, Any]:
    """Trains, calibrates and tests what leaves the study.

    Args:
        choice: See ``choose``.
        checkpoints: Keeps the heads; knows the study and its data.
        earlier: ``summary.json`` of an earlier run, or an empty one.

    Returns:
        ``finalists``, ``refit``, ``calibration``, ``test`` and ``verdict`` of summary.json.

    Raises:
        BottleneckError: The chosen head diverged when it was trained on all rows.
    """
    study, config, data = checkpoints.study, checkpoints.config, checkpoints.data
    article = article_trial(study)
    candidates = _candidates(choice, study, config)
    refits = refit(candidates, config, data) if candidates else {}
    if candidates:
        require_refit(refits, choice.trial)
    probabilities = _validation(choice, checkpoints)
    by_trial = {finalist.trial: finalist for finalist in choice.finalists}
    checkpoints.forget_refits()
    for number, made in refits.items():
        finalist = by_trial.get(number)
        told = finalist.to_dict() if finalist else {}
        checkpoints.save_refit(made, told, _temperature(probabilities.get(number, ()), data))
    tested = [choice.trial, *([article.number] if article else []), *(f.trial for f in choice.finalists)]
    heads = {
        number: find_head(checkpoints.folder, number, refitted=bool(candidates))
        for number in dict.fromkeys(tested)
        if not candidates or number in refits
    }
    ensemble = [number for number in ensemble_members(choice.finalists) if number in refits]
    described = _describe_ensemble(ensemble, probabilities, data)
    test = score_on_test(
        data,
        heads,
        winner=choice.trial,
        article=article.number if article and article.number in heads else None,
        ensemble=described,
        earlier=earlier.get("test"),
    )
    return {
        "ensemble": described,
        "finalists": {"cost": choice.cost, "heads": [finalist.to_dict() for finalist in choice.finalists]}
        if choice.finalists
        else None,
        "refit": _describe_refit(refits.get(choice.trial), data),
        "calibration": _calibration(probabilities.get(choice.trial, ()), data),
        "test": test,
        "verdict": verdict(test),
    }


def ensemble_members(finalists: Sequence[Finalist]) -> list[int]:
    """Returns the trials whose heads the ensemble averages: the finalists, the article's head only where it is one."""
    sound = [finalist for finalist in finalists if finalist.sound]
    return [finalist.trial for finalist in sound if not finalist.is_article or finalist is sound[0]]


def _candidates(choice: Choice, study: optuna.Study, config: StudyConfig) -> list[Candidate]:
    """The heads to train on all rows: the finalists; without these, and with folds, the best trial and the article's.

    Without folds and finalists the trial's own head, which is on the disk, leaves as it is.
    """
    if choice.finalists:
        sound = [finalist for finalist in choice.finalists if finalist.sound]
        return [Candidate(one.trial, one.ordinal, one.spec, one.epochs, one.rates) for one in sound]
    if not config.folds:
        return []
    return [_of_trial(trial) for trial in finalists_of(study, 1)]


def _of_trial(trial: FrozenTrial) -> Candidate:
    told = trial.user_attrs
    spec = HeadSpec.from_dict(told["spec"])
    return Candidate(trial.number, told["ordinal"], spec, told["best_epoch"], told["learning_rates"])


def _validation(choice: Choice, checkpoints: TopCheckpoints) -> dict[int, Sequence[Probabilities]]:
    """What heads that were not trained on the validation rows make of them, by trial.

    A finalist's repeats; of one that was stopped the head that it had as a trial, where there is one.
    """
    found: dict[int, Sequence[Probabilities]] = {
        finalist.trial: finalist.probabilities for finalist in choice.finalists if not finalist.stopped_after
    }
    for number in [choice.trial, *(finalist.trial for finalist in choice.finalists)]:
        path = path_of(checkpoints.folder, number)
        if number not in found and path.is_file():
            found[number] = [predict_probabilities(load_head(path).model, checkpoints.data.validation)]
    return found


def _describe_ensemble(
    members: Sequence[int], probabilities: Mapping[int, Sequence[Probabilities]], data: SearchData
) -> dict[str, Any] | None:
    """Which heads ``search.export --ensemble`` averages, and what calibrates them.

    Averages of the members' repeats are ensembles like it, of heads that were not trained on the validation rows: one
    for each seed with which no member diverged.
    """
    if len(members) < 2:
        return None
    of_seeds = zip(*(probabilities.get(number, ()) for number in members), strict=False)
    return {"trials": list(members), "temperature": _temperature([average_views(seed) for seed in of_seeds], data)}


def _temperature(probabilities: Sequence[Probabilities], data: SearchData) -> float | None:
    """One temperature for all repeats of a head: each of them is a head like the one that leaves."""
    if not probabilities:
        return None
    return fit_temperature(np.concatenate(probabilities), np.tile(data.validation_labels, len(probabilities)))


def _calibration(probabilities: Sequence[Probabilities], data: SearchData) -> dict[str, Any] | None:
    """Of the chosen head's repeats, on the validation rows: what the temperature was fitted on."""
    if not probabilities:
        return None
    labels = np.tile(data.validation_labels, len(probabilities))
    return describe_calibration(np.concatenate(probabilities), labels, _temperature(probabilities, data))


def _describe_refit(made: Refit | None, data: SearchData) -> dict[str, Any] | None:
    if made is None:
        return None
    return {"trial": made.trial, "rows": made.rows, "epochs": made.epochs, "parts": list(data.parts_but_test)}


def require_refit(refits: dict[int, Refit], trial: int) -> Refit:
    """Returns the refit of a trial's head.

    Raises:
        BottleneckError: It diverged.
    """
    if trial not in refits:
        raise BottleneckError(f"trial {trial}: its head diverged when it was trained on all rows")
    return refits[trial]
