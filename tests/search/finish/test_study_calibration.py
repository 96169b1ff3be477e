"""The temperature that leaves with a head: fitted on rows that the heads it was fitted by had not seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ended_study import EndedStudy, drawn_weights, end_study, probabilities

from features.runtime.errors import BottleneckError
from heads.files.head_file import read_head
from heads.metrics.calibration import fit_temperature
from heads.metrics.scoring import mean_probabilities, predict_probabilities
from search.finish import conclusion
from search.finish.conclusion import Choice, conclude
from search.finish.refit import Refit
from search.finish.repeats import Finalist
from search.record.head_files import path_of, refit_path_of
from search.record.results import FinalistCost
from search.record.summary import summarise
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

    monkeypatch.setattr(conclusion, "refit", refit)
    return ended


def finalists(ended: EndedStudy) -> list[Finalist]:
    """Two repeats each, sure of what they call, and often wrong."""
    found = []
    for place, trial in enumerate(finalists_of(ended.study, 2)):
        notes = TrialNotes.of(trial)
        found.append(
            Finalist(
                trial=trial.number,
                ordinal=notes.ordinal,
                head=notes.spec,
                is_article=notes.ordinal == 0,
                values=(0.5, 0.5),
                losses=(1.0, 1.0),
                best_epochs=(1, 1),
                stopped_after=None,
                epochs=1,
                rates=(1e-3,),
                probabilities=tuple(probabilities(ended.data, 12 + place + run, sure=0.97) for run in (0, 1)),
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
    expected = fit_temperature(np.concatenate(found[0].probabilities), np.concatenate([labels, labels]))
    assert summary.calibration.temperature == expected > 1  # they are surer than they are right
    assert summary.calibration.ece_after < summary.calibration.ece_before
    assert read_head(refit_path_of(ended.folder, found[0].trial)).metadata.temperature == expected


def test_no_refit_head_is_shown_the_validation_rows(ended, monkeypatch):
    """It was trained on them: only the test rows may be."""
    shown = []

    def predict(model, feed):
        shown.append(feed)
        return predict_probabilities(model, feed)

    monkeypatch.setattr(conclusion, "predict_probabilities", predict)
    concluded(ended, finalists(ended))
    assert shown == []


def test_of_one_that_was_stopped_the_trials_own_head_serves(ended):
    """The repeats of one that was stopped have not been trained as what leaves is."""
    found = finalists(ended)
    found[0] = replace(found[0], stopped_after=1)
    summary = concluded(ended, found)
    own = read_head(path_of(ended.folder, found[0].trial)).model
    data = ended.data
    expected = fit_temperature(predict_probabilities(own, data.validation), data.validation.labels)
    assert summary.calibration.temperature == expected


def test_so_it_does_of_one_that_was_not_chosen(ended):
    found = finalists(ended)
    found[1] = replace(found[1], stopped_after=1)
    concluded(ended, found)
    validation, number = ended.data.validation, found[1].trial
    own = predict_probabilities(read_head(path_of(ended.folder, number)).model, validation)
    temperature = read_head(refit_path_of(ended.folder, number)).metadata.temperature
    assert temperature == fit_temperature(own, validation.labels)


def test_the_ensembles_temperature_is_of_averages_of_repeats(ended):
    found = finalists(ended)
    summary = concluded(ended, found)
    members = [one for one in found if not one.is_article]
    assert summary.ensemble.trials == tuple(one.trial for one in members)
    seeds = [mean_probabilities([one.probabilities[run] for one in members]) for run in (0, 1)]
    expected = fit_temperature(np.concatenate(seeds), np.tile(ended.data.validation.labels, 2))
    assert summary.ensemble.temperature == expected
    assert summary.test.ensemble.calibration.temperature == expected


def test_an_average_with_a_member_that_was_stopped_is_calibrated_by_what_that_one_had_made(ended):
    """With folds there is no head of the trial itself to ask."""
    found = finalists(ended)
    found[1] = replace(found[1], stopped_after=1)
    path_of(ended.folder, found[1].trial).unlink()
    summary = concluded(ended, found)
    members = [one for one in found if not one.is_article]
    assert found[1] in members
    seeds = [mean_probabilities([one.probabilities[run] for one in members]) for run in (0, 1)]
    expected = fit_temperature(np.concatenate(seeds), np.tile(ended.data.validation.labels, 2))
    assert summary.ensemble.temperature == expected
    assert read_head(refit_path_of(ended.folder, found[1].trial)).metadata.temperature is None  # alone it is another


def test_why_a_head_could_not_be_trained_on_all_rows_is_told(ended, monkeypatch):
    found, real = finalists(ended), conclusion.refit
    chosen, other, *_ = (one.trial for one in found)

    def without(lost: int):
        def refit(candidates, *given):
            return real([one for one in candidates if one.trial != lost], *given)[0], {lost: "found no settings.json"}

        monkeypatch.setattr(conclusion, "refit", refit)

    said = "its head could not be trained on all rows: found no settings.json"
    without(other)
    assert f"trial {other}: {said}" in concluded(ended, found).notes
    without(chosen)
    with pytest.raises(BottleneckError, match=f"trial {chosen}: {said}"):
        concluded(ended, found)
