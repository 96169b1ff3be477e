"""The one use of the test rows: after everything was chosen, by the winner, the article's head and the ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from features.rows.feed import Feed
from features.rows.split import groups_of
from heads.files.head_file import Head, read_head
from heads.files.projected import for_features_of
from heads.metrics.calibration import describe_calibration, with_temperature
from heads.metrics.classification import Metrics, measure
from heads.metrics.intervals import difference_interval
from heads.metrics.scoring import Probabilities, mean_probabilities, predict_probabilities
from search.record.results import (
    Calibration,
    Difference,
    Ensemble,
    EnsembleOnTest,
    HeadOnTest,
    HeldOutTest,
    RecommendedOnTest,
    ScoresOnTest,
)
from search.setup.export_options import Kind
from search.setup.stores import StudyData

TESTED = "tested"
"""The study's attribute that says which heads the test rows were used for."""


@dataclass(frozen=True)
class RecommendedHeads:
    """What is recommended, where it is not the single winner.

    Attributes:
        kind: See ``search.finish.recommendation``.
        trials: Whose heads are averaged.
        paths: Their files; as many of each trial.
        temperature: That of the average.
    """

    kind: Kind
    trials: tuple[int, ...]
    paths: Sequence[Path]
    temperature: float | None


def score_on_test(
    data: StudyData,
    heads: Mapping[int, Path],
    *,
    winner: int,
    article: int | None,
    ensemble: Ensemble | None,
    recommended: RecommendedHeads | None = None,
    earlier: HeldOutTest | None,
    used: Callable[[Sequence[str]], int] | None = None,
    read: Callable[[Path], Head] = read_head,
) -> HeldOutTest | None:
    """Scores heads on the test rows, unless an earlier run of this study did with the very same heads.

    The same weights with another temperature are scored anew, and are no other use of the test rows: a temperature
    changes no call, and is not chosen by these rows.

    Args:
        data: Holds the test rows.
        heads: Files by trial number: of the winner, the article's head and the ensemble's members.
        winner: The winner's trial.
        article: The article's trial; None where it has no head.
        ensemble: Whose heads are averaged, and the average's temperature.
        recommended: What is recommended, where it is not the winner.
        earlier: What this function returned at the end of the last run, if there was one.
        used: See ``note_tested``, of the study; None where no other study directory than this one belongs to it.
        read: Reads a head's file.

    Returns:
        What the test rows say, intervals with patients as units; None where there are no test rows.
    """
    test = data.first.test
    if test is None:
        return None
    more = [path for path in (recommended.paths if recommended else ()) if path not in heads.values()]
    identity, temperatures = _identity([*heads.values(), *more], read)
    same_heads = earlier is not None and earlier.heads == identity
    uses = (earlier.uses if earlier else 0) + (not same_heads)
    if used is not None:  # before they are: who is killed then has seen them
        uses = max(uses, used([*([earlier.heads] if earlier else []), identity]))
    wanted = {
        "winner": temperatures[heads[winner]],
        "article": (article, temperatures[heads[article]]) if article is not None else None,
        "ensemble": (ensemble.trials, ensemble.temperature) if ensemble else None,
        "recommended": (recommended.kind, recommended.trials, recommended.temperature) if recommended else None,
    }
    if earlier and same_heads and _told(earlier) == wanted:
        return earlier if earlier.uses == uses else replace(earlier, uses=uses)

    found = {path: _tested(path, read(path), data) for path in [*heads.values(), *more]}
    patients = test.store.patients[test.rows]
    classes, labels = data.first.store.classes, test.labels

    def scores(tested: _Tested) -> tuple[Metrics, Calibration]:
        return tested.scores(labels, classes, patients)

    mine = found[heads[winner]]
    told = HeldOutTest.of(*scores(mine), trial=winner, is_article=winner == article, uses=uses, heads=identity)
    if article is not None:
        other = found[heads[article]]
        difference = _difference(mine, other, test)
        told = replace(told, article=HeadOnTest.of(*scores(other), trial=article), difference=difference)
    if ensemble:
        together = _Tested(
            mean_probabilities([found[heads[number]].plain for number in ensemble.trials]), ensemble.temperature
        )
        told = replace(told, ensemble=EnsembleOnTest.of(*scores(together), trials=ensemble.trials))
    if recommended:
        average = mean_probabilities([found[path].plain for path in recommended.paths])
        best = _Tested(average, recommended.temperature)
        compared = article is not None and list(recommended.paths) != [heads[article]]
        on_test = RecommendedOnTest.of(
            *scores(best),
            kind=recommended.kind,
            trials=recommended.trials,
            difference=_difference(best, found[heads[article]], test) if article is not None and compared else None,
        )
        told = replace(told, recommended=on_test)
    return told


def note_tested(study: optuna.Study, heads: Sequence[str]) -> int:
    """Notes in a study in a database which heads the test rows are used for: it may end in several study directories.

    Args:
        study: The study.
        heads: As ``HeldOutTest.heads``.

    Returns:
        For how many different ones they have been used.
    """
    noted = study.user_attrs.get(TESTED)
    before = noted if isinstance(noted, list) else []
    if new := [one for one in dict.fromkeys(heads) if one not in before]:
        study.set_user_attr(TESTED, before + new)
    return len(before) + len(new)


class _Tested:
    """What a head makes of the test rows.

    Attributes:
        plain: (rows, classes) as the head gives them.
        calibrated: With the temperature that the head's file holds.
        temperature: None where there is none.
    """

    def __init__(self, plain: Probabilities, temperature: float | None) -> None:
        self.plain = plain
        self.calibrated = with_temperature(plain, temperature)
        self.temperature = temperature

    def right(self, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """(rows,) whether a row is classified correctly."""
        return np.asarray(self.plain.argmax(axis=1) == labels)

    def scores(
        self, labels: npt.NDArray[np.int32], classes: tuple[str, ...], patients: npt.NDArray[Any]
    ) -> tuple[Metrics, Calibration]:
        """Metrics of calibrated probabilities, and what calibration made of them: see ``ScoresOnTest.of``."""
        metrics = measure(self.calibrated, labels, classes, patients=patients)
        return metrics, Calibration(**describe_calibration(self.plain, labels, self.temperature))


def _tested(path: Path, head: Head, data: StudyData) -> _Tested:
    """Shows a head the test rows, in its own store: these are the same images in each."""
    test = data.of_head(head.metadata).test
    assert test is not None
    model = for_features_of(path, head.model, test.store.header)
    return _Tested(predict_probabilities(model, test), head.metadata.temperature)


def _difference(first: _Tested, second: _Tested, test: Feed) -> Difference:
    mine, other = first.right(test.labels), second.right(test.labels)
    low, high = difference_interval(mine, other, groups_of(test.store.patients[test.rows]))
    value = float(mine.mean() - other.mean())
    return Difference(value=value, interval=(low, high), larger_than_chance=bool(low > 0 or high < 0))


def _told(earlier: HeldOutTest) -> dict[str, Any]:
    """What was scored then beside the weights; a study that an older version ended may not say all of it."""
    article, ensemble, recommended = earlier.article, earlier.ensemble, earlier.recommended
    return {
        "winner": _temperature_of(earlier),
        "article": (article.trial, _temperature_of(article)) if article else None,
        "ensemble": (ensemble.trials, _temperature_of(ensemble)) if ensemble else None,
        "recommended": (recommended.kind, recommended.trials, _temperature_of(recommended)) if recommended else None,
    }


def _temperature_of(scores: ScoresOnTest) -> float | str | None:
    return scores.calibration.temperature if scores.calibration else "unknown"


def _identity(paths: Sequence[Path], read: Callable[[Path], Head]) -> tuple[str, dict[Path, float | None]]:
    """Stands for the heads' weights: another head is another use of the test rows. And the files' temperatures."""
    digest = hashlib.sha256()
    temperatures = {}
    for path in paths:
        head = read(path)
        for array in head.model.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
        temperatures[path] = head.metadata.temperature
    return digest.hexdigest()[:16], temperatures
