"""The one use of the test rows: after everything was chosen, by the winner, the article's head and the ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.rows.feed import Feed
from features.rows.split import groups_of
from heads.files.head_file import load_head
from heads.metrics.calibration import describe_calibration, with_temperature
from heads.metrics.classification import measure
from heads.metrics.intervals import difference_interval
from heads.metrics.scoring import Probabilities, average_views, predict_probabilities
from search.setup.data import SearchData


def score_on_test(
    data: SearchData,
    heads: Mapping[int, Path],
    *,
    winner: int,
    article: int | None,
    ensemble: Mapping[str, Any] | None,
    earlier: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Scores heads on the test rows, unless an earlier run of this study did with the very same heads.

    Args:
        data: Holds the test rows.
        heads: Files by trial number: of the winner, the article's head and the ensemble's members.
        winner: The chosen head's trial.
        article: The article's trial; None where it has no head.
        ensemble: ``trials`` whose heads are averaged, and the average's ``temperature``.
        earlier: What this function returned at the end of the last run, if there was one.

    Returns:
        Of the winner ``trial``, ``is_article``, what ``heads.metrics.classification`` measures with patients as units,
        and ``calibration``; ``article`` and ``ensemble`` likewise, shorter; ``difference`` between winner and article,
        with its interval; ``uses``: how often these rows have been used, 1 unless the study was resumed and ended in
        other heads. None where there are no test rows.
    """
    if data.test is None:
        return None
    identity = _identity(heads)
    if earlier and earlier.get("heads") == identity:
        return dict(earlier)
    found = {number: _Tested.of(path, data.test) for number, path in heads.items()}
    patients = data.test.store.patients[data.test.rows]
    classes, labels = data.store.classes, data.test.labels

    def described(tested: _Tested) -> dict[str, Any]:
        return tested.describe(labels, classes, patients)

    mine = found[winner]
    told: dict[str, Any] = {
        "trial": winner,
        "is_article": winner == article,
        "uses": 1 + (earlier["uses"] if earlier else 0),
        "heads": identity,
        **described(mine),
        "article": None,
        "difference": None,
        "ensemble": None,
    }
    if article is not None:
        told["article"] = {"trial": article, **described(found[article])}
        told["difference"] = _difference(mine.right(labels), found[article].right(labels), groups_of(patients))
    if ensemble:
        together = _Tested(average_views([found[n].plain for n in ensemble["trials"]]), ensemble["temperature"])
        told["ensemble"] = {"trials": ensemble["trials"], **described(together)}
    return told


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

    @classmethod
    def of(cls, path: Path, test: Feed) -> _Tested:
        head = load_head(path)
        return cls(predict_probabilities(head.model, test), head.metadata.temperature)

    def right(self, labels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """(rows,) whether a row is called rightly."""
        return np.asarray(self.plain.argmax(axis=1) == labels)

    def describe(
        self, labels: npt.NDArray[np.int32], classes: tuple[str, ...], patients: npt.NDArray[Any]
    ) -> dict[str, Any]:
        """Metrics of the calibrated probabilities, and what calibration made of them."""
        metrics = measure(self.calibrated, labels, classes, patients=patients).to_dict()
        return metrics | {"calibration": describe_calibration(self.plain, labels, self.temperature)}


def _difference(
    mine: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], patients: npt.NDArray[np.int64]
) -> dict[str, Any]:
    low, high = difference_interval(mine, other, patients)
    return {
        "value": float(mine.mean() - other.mean()),
        "interval": [low, high],
        "larger_than_chance": bool(low > 0 or high < 0),
    }


def _identity(heads: Mapping[int, Path]) -> str:
    """Stands for the heads' weights: another head is another use of the test rows."""
    digest = hashlib.sha256()
    for path in heads.values():
        for array in load_head(path).model.get_weights():
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
