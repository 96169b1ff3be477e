"""The test rows: used once by the same heads, counted when by others, and compared head against head."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import optuna
import pytest
from ended_study import end_study

from features.rows.split import groups_of
from heads.files.head_file import read_head
from heads.metrics.intervals import difference_interval
from heads.metrics.scoring import mean_probabilities, predict_probabilities
from search.finish import held_out
from search.finish.held_out import TESTED, ToTest, note_tested, score_on_test
from search.record.head_files import path_of
from search.record.results import Ensemble
from search.setup.stores import StudyData
from search.trials.ranking import ranking


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    return end_study(tmp_path_factory.mktemp("held-out"))


@pytest.fixture(scope="module")
def heads(ended):
    return {trial.number: path_of(ended.folder, trial.number) for trial in ranking(ended.study)[:3]}


def scored(ended, heads, **changes):
    how = {name: changes.pop(name) for name in ("earlier", "note_use", "read") if name in changes}
    return score_on_test(ended.study_data, ToTest(heads, winner=next(iter(heads)), **changes), **how)


def called_rightly(ended, path) -> np.ndarray:
    test = ended.data.test
    return predict_probabilities(read_head(path).model, test).argmax(axis=1) == test.labels


def test_it_says_what_each_head_does_and_the_difference_row_by_row(ended, heads):
    winner, other, _ = heads
    test = scored(ended, heads, article=other)
    mine, theirs = called_rightly(ended, heads[winner]), called_rightly(ended, heads[other])
    assert (test.trial, test.is_article, test.article.trial) == (winner, False, other)
    assert test.accuracy == mine.mean()
    assert test.article.accuracy == theirs.mean()
    assert test.difference.value == pytest.approx(mine.mean() - theirs.mean())
    assert test.rows == len(mine) == sum(map(sum, test.confusion))
    low, high = test.difference.interval
    assert low <= test.difference.value <= high
    assert test.difference.larger_than_chance == (low > 0 or high < 0)


def test_the_interval_of_the_difference_has_patients_as_units(ended, heads):
    winner, other, _ = heads
    mine, theirs = called_rightly(ended, heads[winner]), called_rightly(ended, heads[other])
    test = ended.data.test
    by_patients = difference_interval(mine, theirs, groups_of(test.store.patients[test.rows]))
    assert scored(ended, heads, article=other).difference.interval == by_patients
    assert by_patients != difference_interval(mine, theirs, np.arange(len(mine)))


def test_a_head_does_not_differ_from_itself(ended, heads):
    """Which it would by chance, were the two not judged on the same draws of patients."""
    winner = next(iter(heads))
    test = scored(ended, heads, article=winner)
    assert test.is_article
    assert 0 < test.accuracy < 1
    low, high = test.difference.interval
    assert low == -high < test.difference.value == 0  # nothing but what may be on other patients
    assert not test.difference.larger_than_chance


def test_the_ensemble_is_the_average_of_its_members(ended, heads):
    members = tuple(heads)[:2]
    test = scored(ended, heads, ensemble=Ensemble(trials=members, temperature=2.0))
    each = [predict_probabilities(read_head(heads[number]).model, ended.data.test) for number in members]
    right = mean_probabilities(each).argmax(axis=1) == ended.data.test.labels
    assert test.ensemble.trials == members
    assert test.ensemble.accuracy == right.mean()
    assert test.ensemble.calibration.temperature == 2.0


def test_the_same_heads_are_not_scored_twice_and_others_are_counted(ended, heads, monkeypatch):
    first = scored(ended, heads)
    assert first.uses == 1
    fewer = dict(list(heads.items())[1:])
    assert scored(ended, fewer, earlier=first).uses == 2
    assert scored(ended, fewer, earlier=replace(first, uses=4)).uses == 5

    def refuse(*_):
        raise AssertionError("the test rows were shown to a head again")

    monkeypatch.setattr(held_out, "predict_probabilities", refuse)
    assert scored(ended, heads, earlier=first) == first
    with pytest.raises(AssertionError, match="shown to a head again"):
        scored(ended, fewer, earlier=first)


def test_all_study_directories_of_a_study_count_the_same_uses(ended, heads):
    study, fewer = optuna.create_study(), dict(list(heads.items())[1:])
    used = partial(note_tested, study)
    here = scored(ended, heads, note_use=used)
    there = scored(ended, fewer, note_use=used)
    assert (here.uses, there.uses) == (1, 2)
    assert scored(ended, heads, earlier=here, note_use=used) == replace(here, uses=2)
    assert scored(ended, fewer, earlier=here, note_use=used) == there, "these are the heads that were used there"
    assert study.user_attrs[TESTED] == [here.heads, there.heads]
    assert scored(ended, fewer, earlier=replace(here, heads="others", uses=6), note_use=used).uses == 7
    study.set_user_attr(TESTED, "rubbish")
    assert scored(ended, heads, note_use=used).uses == 1


def test_the_same_weights_with_another_temperature_are_scored_anew_and_are_no_other_use(ended, heads):
    def read_with(temperature):
        def read(path):
            head = read_head(path)
            return replace(head, metadata=replace(head.metadata, temperature=temperature))

        return read

    _, article, _ = heads
    told = {"article": article, "ensemble": Ensemble(trials=tuple(heads)[:2], temperature=2.0)}
    first = scored(ended, heads, **told, read=read_with(1.5))
    assert scored(ended, heads, **told, earlier=first, read=read_with(1.5)) is first
    again = scored(ended, heads, **told, earlier=first, read=read_with(5.0))
    assert (again.uses, again.calibration.temperature, again.article.calibration.temperature) == (1, 5.0, 5.0)
    assert again == scored(ended, heads, **told, read=read_with(5.0))
    assert again.loss != first.loss
    told["ensemble"] = replace(told["ensemble"], temperature=3.0)
    assert scored(ended, heads, **told, earlier=again, read=read_with(5.0)).ensemble.calibration.temperature == 3.0


def test_without_test_rows_there_is_nothing_to_say(ended, heads):
    untested = StudyData.of_one(replace(ended.data, test=None))
    assert score_on_test(untested, ToTest(heads, winner=0)) is None
