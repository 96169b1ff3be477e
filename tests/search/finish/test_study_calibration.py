"""The temperature that leaves with a head: fitted on rows that the heads it was fitted by had not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import build_features, build_header, fill_store
from ended_study import EndedStudy, drawn_weights, end_study, probabilities

from features.runtime.errors import BottleneckError
from features.store.schema import RowState
from heads.files.head_file import read_head
from heads.metrics.calibration import fit_temperature, with_temperature
from heads.metrics.curves import reliability
from heads.metrics.scoring import mean_probabilities, score
from search.finish import final_heads
from search.finish.calibration import calibration_of, temperature_of
from search.finish.choice import Choice
from search.finish.conclusion import conclude
from search.finish.recommendation import Entrant, recommend
from search.finish.refit import Refit
from search.finish.repeats import Finalist
from search.record.head_files import refit_path_of
from search.record.recommended import ENSEMBLE
from search.record.results import FinalistCost
from search.record.summary import summarise
from search.setup.data import SearchData, load_data
from search.trials.notes import TrialNotes
from search.trials.ranking import finalists_of

COST = FinalistCost(trial_epochs=1, seconds=1.0)


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Its refits are made up: nothing is trained."""
    ended = end_study(tmp_path)

    def refit(candidates, _config, data, _own):
        found = {
            one.trial: Refit(
                one.trial, one.spec, drawn_weights(one.spec, data.first, seed=100 + one.trial), one.epochs, 9
            )
            for one in candidates
        }
        return found, {}

    monkeypatch.setattr(final_heads, "refit", refit)
    return ended


def finalists(ended: EndedStudy) -> list[Finalist]:
    """Two repeats each, sure of what they call, and often wrong."""
    found = []
    for index, trial in enumerate(finalists_of(ended.study, 2)):
        notes = TrialNotes.of(trial)
        found.append(
            Finalist(
                trial=trial.number,
                ordinal=notes.ordinal,
                head=notes.spec,
                is_article=notes.ordinal == 0,
                values=(0.5, 0.5),
                losses=(1.0, 1.0),
                epochs=1,
                rates=(1e-3,),
                probabilities=tuple(probabilities(ended.data, 12 + index + run, sure=0.97) for run in (0, 1)),
            )
        )
    return found


def concluded(ended: EndedStudy, found: list[Finalist]):
    choice = Choice(found[0].trial, found, COST)
    return conclude(choice, ended.checkpoints, summarise(ended.study, ended.config, chosen=choice.trial))


def test_it_is_fitted_on_the_validation_rows_by_the_repeats(ended):
    found = finalists(ended)
    summary = concluded(ended, found)
    labels = ended.data.validation.labels
    expected = fit_temperature(np.concatenate(found[0].probabilities), np.concatenate([labels, labels]), repeats=2)
    assert summary.calibration.temperature == expected > 1  # they are surer than they are right
    assert summary.calibration.ece_after < summary.calibration.ece_before
    assert read_head(refit_path_of(ended.folder, found[0].trial)).metadata.temperature == expected


def test_the_ensembles_temperature_is_of_averages_of_repeats(ended):
    found = finalists(ended)
    summary = concluded(ended, found)
    members = [one for one in found if not one.is_article]
    assert summary.ensemble.trials == tuple(one.trial for one in members)
    seeds = [mean_probabilities([one.probabilities[run] for one in members]) for run in (0, 1)]
    expected = fit_temperature(np.concatenate(seeds), np.tile(ended.data.validation.labels, 2), repeats=2)
    assert summary.ensemble.temperature == expected
    assert summary.test.ensemble.calibration.temperature == expected
    contender = next(one for one in summary.recommendation.contenders if one.kind == ENSEMBLE)
    assert contender.temperature == expected  # as it is compared, so it leaves


@pytest.fixture
def lone(tmp_path) -> SearchData:
    """Rows in three folds, of which one has a class, D, that no other has."""
    labels = tuple(row % 3 for row in range(36)) + (3,) * 12
    header = replace(build_header(rows=48), labels=labels, patients=tuple(f"{min(row, 36)}" for row in range(48)))
    fill_store(tmp_path / "s.h5", header, build_features(header), np.full(48, RowState.DONE, np.uint8))
    shares = {"validation_share": 0.0, "test_share": 0.0}
    return load_data(tmp_path / "s.h5", validation=None, test=None, **shares, folds=3, seed=1, resident=False)


def unknowing(data: SearchData, right: int, *, sure: float) -> np.ndarray:
    """As ``probabilities``, by heads that know nothing of the last class."""
    called, of_known = probabilities(data, right, sure=sure), data.validation_labels != 3
    called[~of_known] = (0.9, 0.0999, 0.0001 - 1e-6, 1e-6)
    return called


def test_rows_of_a_class_that_the_judging_heads_never_saw_calibrate_nothing(lone):
    labels, of_known = lone.validation_labels, lone.validation_labels != 3
    assert lone.has_known_class.tolist() == of_known.tolist()
    called = [unknowing(lone, right, sure=0.7) for right in (46, 48)]
    known = [one[of_known] for one in called]
    expected = fit_temperature(np.concatenate(known), np.tile(labels[of_known], 2), repeats=2)
    assert temperature_of(called, lone) == expected < 1 < fit_temperature(np.concatenate(called), np.tile(labels, 2))
    told = calibration_of(called, expected, lone)
    assert told.ece_after < told.ece_before == reliability(np.concatenate(known), np.tile(labels[of_known], 2)).error


def test_without_any_other_rows_nothing_is_calibrated(lone):
    """Where each class has one patient, no fold has rows of any other's."""
    data = replace(lone, folds=(np.flatnonzero(lone.store.labels == 3),))
    called = [unknowing(data, 0, sure=0.7)]
    assert temperature_of(called, data) is None
    assert calibration_of(called, None, data) is None
    found = recommend([Entrant("winner", (1,), 1, called), Entrant("repeats", (1,), 2, called)], data, "loss")
    assert (found.kind, found.chosen.temperature) == ("winner", None)


def test_nor_are_they_compared_by_logarithms(lone):
    """One that is surer is the better for it, however little it gives to what it does not know."""
    modest, sure = unknowing(lone, 48, sure=0.5), unknowing(lone, 48, sure=0.98)
    sure[lone.validation_labels == 3] = (1 - 2e-7, 1e-7, 1e-7 - 1e-12, 1e-12)
    modest[:2] = unknowing(lone, 0, sure=0.5)[:2]
    compared = [Entrant("article", (0,), 1, [modest]), Entrant("winner", (1,), 1, [sure])]
    article, winner = recommend(compared, lone, "loss").contenders
    of_known = lone.has_known_class
    tempered = with_temperature(sure, winner.temperature)[of_known]
    assert winner.value == pytest.approx(-score(tempered, lone.validation_labels[of_known]).loss)
    assert winner.value > article.value
    right = recommend(compared, lone, "accuracy").contenders
    assert [one.value for one in right] == pytest.approx([34 / 48, 36 / 48])  # as the study's own values


def test_why_a_head_could_not_be_trained_on_all_rows_is_told(ended, monkeypatch):
    found, real = finalists(ended), final_heads.refit
    chosen, other, *_ = (one.trial for one in found)

    def without(lost: int):
        def refit(candidates, *given):
            return real([one for one in candidates if one.trial != lost], *given)[0], {lost: "found no settings.json"}

        monkeypatch.setattr(final_heads, "refit", refit)

    said = "its head could not be trained on all rows: found no settings.json"
    without(other)
    assert f"trial {other}: {said}" in concluded(ended, found).notes
    without(chosen)
    with pytest.raises(BottleneckError, match=f"trial {chosen}: {said}"):
        concluded(ended, found)
