"""The one use of the test rows: after everything was chosen, by the winner, the article's head and the ensemble."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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


@dataclass(frozen=True)
class ToTest:
    """What is shown the test rows.

    Attributes:
        heads: Files by trial number: of the winner, the article's head and the ensemble's members.
        winner: The winner's trial.
        article: The article's trial; None where it has no head.
        ensemble: Whose heads are averaged, and the average's temperature.
        recommended: What is recommended, where it is not the winner.
    """

    heads: Mapping[int, Path]
    winner: int
    article: int | None = None
    ensemble: Ensemble | None = None
    recommended: RecommendedHeads | None = None

    @property
    def paths(self) -> list[Path]:
        """Every file, once."""
        averaged = self.recommended.paths if self.recommended else ()
        return list(dict.fromkeys([*self.heads.values(), *averaged]))


def score_on_test(
    data: StudyData,
    to_test: ToTest,
    *,
    earlier: HeldOutTest | None = None,
    note_use: Callable[[Sequence[str]], int] | None = None,
    read: Callable[[Path], Head] = read_head,
) -> HeldOutTest | None:
    """Scores heads on the test rows, unless an earlier run of this study did with the very same heads.

    The same weights with another temperature are scored anew, and are no other use of the test rows: a temperature
    changes no call, and is not chosen by these rows.

    Args:
        data: Holds the test rows.
        to_test: What is scored.
        earlier: What this function returned at the end of the last run, if there was one.
        note_use: See ``note_tested``, of the study; None where no other study directory than this one belongs to it.
        read: Reads a head's file.

    Returns:
        What the test rows say, intervals with patients as units; None where there are no test rows.
    """
    if data.first.test is None:
        return None
    identity, temperatures = _identity(to_test.paths, read)
    same_heads = earlier is not None and earlier.heads == identity
    uses = (earlier.uses if earlier else 0) + (not same_heads)
    if note_use is not None:  # before they are: who is killed then has seen them
        uses = max(uses, note_use([*([earlier.heads] if earlier else []), identity]))
    if earlier and same_heads and _TestedAs.before(earlier) == _TestedAs.now(to_test, temperatures):
        return earlier if earlier.uses == uses else replace(earlier, uses=uses)
    tested = {path: _tested(path, read(path), data) for path in to_test.paths}
    return replace(_scores(tested, to_test, data.first.test), uses=uses, heads=identity)


def _scores(tested: Mapping[Path, _Tested], to_test: ToTest, test: Feed) -> HeldOutTest:
    """What the test rows say, as if they were used for the first time."""

    def average(paths: Iterable[Path], temperature: float | None) -> _Tested:
        return _Tested(mean_probabilities([tested[path].plain for path in paths]), temperature)

    heads, ensemble, recommended = to_test.heads, to_test.ensemble, to_test.recommended
    winner = tested[heads[to_test.winner]]
    article = tested[heads[to_test.article]] if to_test.article is not None else None
    result = HeldOutTest.of(*winner.scores(test), trial=to_test.winner, is_article=to_test.winner == to_test.article)
    if article is not None and to_test.article is not None:
        on_test = HeadOnTest.of(*article.scores(test), trial=to_test.article)
        result = replace(result, article=on_test, difference=_difference(winner, article, test))
    if ensemble:
        together = average((heads[number] for number in ensemble.trials), ensemble.temperature)
        result = replace(result, ensemble=EnsembleOnTest.of(*together.scores(test), trials=ensemble.trials))
    if recommended:
        best = average(recommended.paths, recommended.temperature)
        is_article = [tested[path] for path in recommended.paths] == [article]
        difference = None if article is None or is_article else _difference(best, article, test)
        result = replace(
            result,
            recommended=RecommendedOnTest.of(
                *best.scores(test), kind=recommended.kind, trials=recommended.trials, difference=difference
            ),
        )
    return result


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

    def scores(self, test: Feed) -> tuple[Metrics, Calibration]:
        """Metrics of calibrated probabilities, and what calibration made of them: see ``ScoresOnTest.of``."""
        store, labels = test.store, test.labels
        metrics = measure(self.calibrated, labels, store.classes, patients=store.patients[test.rows])
        return metrics, Calibration(**describe_calibration(self.plain, labels, self.temperature))


def _tested(path: Path, head: Head, data: StudyData) -> _Tested:
    """Shows a head the test rows, in its own store: these are the same images in each."""
    test = data.of_head(head.metadata).test
    assert test is not None
    model = for_features_of(path, head.model, test.store.header)
    return _Tested(predict_probabilities(model, test), head.metadata.temperature)


def _difference(first: _Tested, second: _Tested, test: Feed) -> Difference:
    first_right, second_right = first.right(test.labels), second.right(test.labels)
    low, high = difference_interval(first_right, second_right, groups_of(test.store.patients[test.rows]))
    value = float(first_right.mean() - second_right.mean())
    return Difference(value=value, interval=(low, high), larger_than_chance=bool(low > 0 or high < 0))


_Temperature = float | str | None
"""Of what was tested; None where it has none, a word where an older version did not say."""


@dataclass(frozen=True)
class _TestedAs:
    """What was tested beside the weights: what each was called, by its trials and its temperature."""

    winner: _Temperature
    article: tuple[int, _Temperature] | None
    ensemble: tuple[tuple[int, ...], _Temperature] | None
    recommended: tuple[Kind, tuple[int, ...], _Temperature] | None

    @classmethod
    def now(cls, to_test: ToTest, temperatures: Mapping[Path, float | None]) -> _TestedAs:
        """Returns what is to be tested, by the temperatures that the files hold."""
        heads, article = to_test.heads, to_test.article
        ensemble, recommended = to_test.ensemble, to_test.recommended
        return cls(
            winner=temperatures[heads[to_test.winner]],
            article=(article, temperatures[heads[article]]) if article is not None else None,
            ensemble=(ensemble.trials, ensemble.temperature) if ensemble else None,
            recommended=(recommended.kind, recommended.trials, recommended.temperature) if recommended else None,
        )

    @classmethod
    def before(cls, earlier: HeldOutTest) -> _TestedAs:
        """Returns what an earlier end tested; a study that an older version ended may not say all of it."""
        article, ensemble, recommended = earlier.article, earlier.ensemble, earlier.recommended
        return cls(
            winner=_temperature_of(earlier),
            article=(article.trial, _temperature_of(article)) if article else None,
            ensemble=(ensemble.trials, _temperature_of(ensemble)) if ensemble else None,
            recommended=(recommended.kind, recommended.trials, _temperature_of(recommended)) if recommended else None,
        )


def _temperature_of(scores: ScoresOnTest) -> _Temperature:
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
