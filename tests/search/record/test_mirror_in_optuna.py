"""Optuna's studies over mirrors: what is asked for, enqueued and told by several processes is one study."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from made_database import at_once, database
from made_mirrors import Mirrors, view
from optuna.trial import TrialState

from search.record.mirror import Mirror
from search.setup.optuna_internals import id_of_trial
from search.trials.notes import TrialNotes


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request, tmp_path_factory) -> Iterator[str]:
    with database(request.param, tmp_path_factory.mktemp("asked")) as url:
        yield url


@pytest.fixture
def join(mirrors) -> Callable[..., Mirror]:
    return mirrors.join


def test_of_two_that_ask_and_tell_at_once_each_has_numbers_of_its_own_without_gaps(mirrors, join):
    both = [join(), join()]

    def work(which: int) -> list[int]:
        study, numbers = mirrors.study_of(both[which]), []
        for index in range(6):
            trial = study.ask()
            trial.suggest_float("rate", 0, 1)
            trial.report(index / 8, 1)
            assert [one.number for one in study.get_trials(deepcopy=False)][: trial.number + 1] == list(
                range(trial.number + 1)
            )
            study.tell(trial, index)
            numbers.append(trial.number)
        return numbers

    assert sorted(number for numbers in at_once(work, 2) for number in numbers) == list(range(12))
    for mirror in both * 2:
        assert mirror.flush() == []
    assert view(both[0]) == view(both[1]) == mirrors.stored
    assert {trial.state for trial in mirrors.stored} == {TrialState.COMPLETE}


def run_enqueued(mirrors: Mirrors, one: Mirror, two: Mirror) -> None:
    """``one`` enqueues three trials; the other asks for the first and the last, and both run what they have."""
    studies = [mirrors.study_of(mirror) for mirror in (one, two)]
    for index in range(3):
        studies[0].enqueue_trial({"rate": index / 4}, user_attrs=TrialNotes.as_attributes(ordinal=index))
    two.flush()
    turns = (1, 0, 1, 0)
    asked = [studies[which].ask() for which in turns]
    assert [trial.number for trial in asked] == [0, 1, 2, 3], "each once, and then a new one"
    assert [trial.suggest_float("rate", 0, 1) for trial in asked[:3]] == [0, 0.25, 0.5]
    for which, trial in zip(turns, asked, strict=True):
        studies[which].tell(trial, 0.5)
    for mirror in (one, two, one, two):
        assert mirror.flush() == []


def test_what_one_enqueues_is_asked_for_once_whoever_asks(mirrors, join):
    one, two = join(), join()
    run_enqueued(mirrors, one, two)
    assert {trial.state for trial in mirrors.stored} == {TrialState.COMPLETE}
    assert view(two) == mirrors.stored


def test_who_has_enqueued_a_trial_sees_what_another_has_made_of_it(mirrors, join):
    one, two = join(), join()
    run_enqueued(mirrors, one, two)
    assert view(one) == mirrors.stored


def test_a_trial_that_was_made_without_that_being_heard_leaves_no_gap(mirrors, join, storage):
    one = join(shared=False)
    study = mirrors.study_of(one)
    study.tell(study.ask(), 1.0)
    storage.create_new_trial(mirrors.study)  # the connection ended before its number came back
    trial = study.ask()
    assert trial.number == 2
    assert [one.number for one in study.get_trials()] == [0, 1, 2]
    trial.report(0.5, 1)
    study.tell(trial, 0.5)
    one.flush()
    assert view(one) == mirrors.stored


def test_a_trial_that_another_has_begun_is_not_begun(mirrors, join):
    one, two = join(), join()
    mirrors.study_of(one).enqueue_trial({})
    two.flush()
    (waiting,) = view(two)
    number = id_of_trial(waiting)
    assert one.set_trial_state_values(number, TrialState.RUNNING) is True
    assert two.set_trial_state_values(number, TrialState.RUNNING) is False
    assert (one.running, two.running) == ([number], [])
