"""A study in a database as one process sees it: what is noted, what comes of others, what is refused."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise

import optuna
import pytest
from made_database import commits, database
from made_mirrors import PATIENCE_S, Clock, Gate, claim, view
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search.record import mirror as module
from search.record.mirror import Mirror
from search.record.trial_tables import Noted
from search.trials.notes import TrialNotes

RATE = FloatDistribution(0, 1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request, tmp_path_factory) -> Iterator[str]:
    with database(request.param, tmp_path_factory.mktemp("mirror")) as url:
        yield url


@pytest.fixture
def join(mirrors) -> Callable[..., Mirror]:
    """Makes mirrors of one study, each as a process of its own has it."""
    return mirrors.join


def seen(mirror: Mirror, number: int) -> FrozenTrial:
    return mirror.get_trial(number)


def note_all(mirror: Mirror, number: int, told: float) -> None:
    """Notes something of every sort."""
    mirror.set_trial_param(number, "rate", 0.5, RATE)
    mirror.set_trial_intermediate_value(number, 1, told)
    mirror.set_trial_user_attr(number, "ours", (told, {"x": None}))
    mirror.set_trial_system_attr(number, "optunas", told)


def come(mirror: Mirror) -> list[int]:
    """Hands over until what was under way has come; returns which trials were lost meanwhile."""
    lost, ends = mirror.hand_over(), time.monotonic() + PATIENCE_S
    while mirror._exchange is not None:
        assert time.monotonic() < ends
        time.sleep(0.002)
        lost += mirror.hand_over()
    return lost


# --- what is noted ----------------------------------------------------------------------------------------------------


def test_what_is_noted_is_seen_at_once_and_is_in_the_database_after_a_flush_as_one_transaction(mirrors, join):
    one = join(shared=False)
    numbers = [claim(one) for _ in range(4)]
    before, held = mirrors.stored, [seen(one, number) for number in numbers]
    done = commits(one.database)
    for index, number in enumerate(numbers):
        note_all(one, number, index / 8)
    assert one.set_trial_state_values(numbers[0], TrialState.COMPLETE, [math.inf])
    assert one.set_trial_state_values(numbers[1], TrialState.PRUNED)
    assert [trial.intermediate_values for trial in view(one)] == [{1: index / 8} for index in range(4)]
    first = seen(one, numbers[0])
    assert (first.state, first.value, first.params, first.distributions) == (
        TrialState.COMPLETE,
        math.inf,
        {"rate": 0.5},
        {"rate": RATE},
    )
    assert (first.user_attrs["ours"], first.system_attrs["optunas"]) == ([0.0, {"x": None}], 0.0)
    assert first.datetime_complete is not None
    assert held == before == mirrors.stored, "who holds a trial has it as it was, and nothing is written yet"
    assert one.flush() == []
    assert len(done) == 1
    assert mirrors.stored == view(one)
    done.clear()
    assert one.flush() == []
    assert not done, "there was nothing to write, and nobody to hear"


def test_closing_writes_what_was_noted_and_may_be_done_twice(mirrors, join):
    one = join()
    number = claim(one)
    note_all(one, number, 0.5)
    assert one.is_open
    one.close()
    one.close()
    assert not one.is_open
    assert mirrors.stored == view(one)
    assert mirrors.stored[0].intermediate_values == {1: 0.5}


def test_handing_over_never_waits_and_what_is_noted_meanwhile_goes_with_the_next(mirrors, join):
    one = join(shared=False)
    number = claim(one)
    written: list[dict[int, float]] = []
    real = one.tables.write

    def write(noted):
        written.append(noted[number].intermediate_values)
        return real(noted)

    one.tables.write = gate = Gate(write)
    one.set_trial_intermediate_value(number, 1, 0.1)
    one.hand_over()
    gate.await_call()
    one.set_trial_intermediate_value(number, 2, 0.2)
    assert one.hand_over() == []  # with the gate closed this would wait for ever
    one.set_trial_intermediate_value(number, 1, 0.9)
    one.hand_over()
    assert mirrors.stored[0].intermediate_values == {}
    gate.open()
    one.flush()
    assert written == [{1: 0.1}, {2: 0.2, 1: 0.9}]
    assert mirrors.stored[0].intermediate_values == {1: 0.9, 2: 0.2}


def test_notes_are_taken_in_the_order_in_which_they_were_made():
    first = Noted({1: 0.1, 2: 0.2}, {"rate": (0.1, RATE)}, {"a": 1}, {"b": 1})
    ended = datetime.now()
    first.update(Noted({2: 0.9}, {"rate": (0.9, RATE)}, {"a": 2}, {"c": 3}, TrialState.COMPLETE, [0.5], ended))
    first.update(Noted({3: 0.3}))
    assert first == Noted(
        {1: 0.1, 2: 0.9, 3: 0.3},
        {"rate": (0.9, RATE)},
        {"a": 2},
        {"b": 1, "c": 3},
        TrialState.COMPLETE,
        [0.5],
        ended,
    )


def test_what_json_does_not_know_is_refused_and_nothing_is_noted(mirrors, join):
    one = join()
    number = claim(one)
    for note in (one.set_trial_user_attr, one.set_trial_system_attr):
        with pytest.raises(TypeError):
            note(number, "a", object())
    one.flush()
    assert mirrors.stored == view(one)
    assert not seen(one, number).system_attrs


def test_another_kind_of_parameter_of_the_same_name_is_refused_whoever_drew_it(mirrors, join):
    one, two = join(), join()
    theirs, mine = claim(one), claim(two)
    one.set_trial_param(theirs, "rate", 0.5, RATE)
    one.set_trial_param(theirs, "pooling", 0, CategoricalDistribution(["max"]))
    one.flush()
    two.flush()
    for name, other in (("rate", IntDistribution(0, 1)), ("pooling", CategoricalDistribution(["max", "average"]))):
        with pytest.raises(ValueError, match="istribution"):
            two.set_trial_param(mine, name, 0, other)
    two.set_trial_param(mine, "rate", 1.5, FloatDistribution(0, 2))  # another range is none
    two.flush()
    assert mirrors.stored[1].params == {"rate": 1.5}


def test_what_has_ended_is_not_changed_any_more(mirrors, join):
    one, two = join(), join()
    number = claim(one)
    one.set_trial_state_values(number, TrialState.COMPLETE, [0.5])
    one.flush()
    two.flush()
    for mirror in (one, two):
        for change in (
            lambda mirror: mirror.set_trial_state_values(number, TrialState.FAIL),
            lambda mirror: mirror.set_trial_intermediate_value(number, 1, 0.5),
            lambda mirror: mirror.set_trial_param(number, "rate", 0.5, RATE),
            lambda mirror: mirror.set_trial_user_attr(number, "a", 1),
            lambda mirror: mirror.set_trial_system_attr(number, "a", 1),
        ):
            with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
                change(mirror)
        assert mirror.flush() == []
    assert mirrors.stored == view(one) == view(two)


def test_a_trial_that_is_not_there_is_named(join):
    one = join()
    with pytest.raises(KeyError, match="1000000 in the storage"):
        one.get_trial(10**6)
    with pytest.raises(KeyError, match="no trial 0"):
        one.get_trial_id_from_study_id_trial_number(0, 0)
    number = claim(one)
    assert one.get_trial_id_from_study_id_trial_number(0, 0) == number


# --- what comes of others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taking", [come, Mirror.flush])
def test_what_others_have_noted_comes_with_an_exchange(mirrors, join, taking):
    one, two = join(), join()
    first = claim(one)
    one.set_trial_intermediate_value(first, 1, 0.5)
    one.flush()
    assert view(two) == []
    taking(two)
    assert view(two) == mirrors.stored
    one.set_trial_state_values(first, TrialState.COMPLETE, [0.5])
    second = claim(one)
    note_all(one, second, 0.25)
    one.flush()
    two._pull_at = 0.0  # there is a bound to how often, see below
    taking(two)
    assert view(two) == mirrors.stored
    assert [trial.state for trial in view(two)] == [TrialState.COMPLETE, TrialState.RUNNING]


def test_who_works_alone_does_not_read_what_nobody_else_writes(join):
    one = join(shared=False)
    number = claim(one)
    read = []
    one.tables.changed = lambda known: read.append(known) or []
    for step in range(3):
        one.set_trial_intermediate_value(number, step, 0.5)
        come(one)
        one.flush()
    assert not read


def test_others_are_read_in_a_twentieth_of_the_time_at_most(join, monkeypatch):
    one, clock, read = join(), Clock(), []
    monkeypatch.setattr(module, "time", clock)

    def changed(known):
        read.append(clock.now)
        clock.sleep(2)
        return []

    one.tables.changed = changed
    for _ in range(200):
        come(one)
        clock.sleep(1)
    assert 4 <= len(read) <= 6
    assert min(after - before for before, after in pairwise(read)) >= 40
    one.flush()
    one.flush()
    assert len(read) >= 6, "who waits for it has it at once"


def test_a_trial_that_has_ended_is_never_turned_back_by_an_older_read(mirrors, join):
    one, two = join(), join()
    number = claim(two)
    one.tables.changed = gate = Gate(one.tables.changed, behind=True)
    one.hand_over()
    gate.await_call()  # it has read the trial as running, and is slow to say so
    two.set_trial_intermediate_value(number, 1, 0.5)
    two.give_back()
    again = claim(one)  # which reads what the trial has come to
    assert seen(one, number).state == TrialState.FAIL
    gate.open()
    come(one)
    assert seen(one, number).state == TrialState.FAIL
    assert seen(one, again).state == TrialState.RUNNING
    assert view(one) == mirrors.stored


def test_what_a_process_has_noted_is_not_undone_by_what_was_read_meanwhile(mirrors, join):
    one = join()
    one.tables.changed = gate = Gate(one.tables.changed)
    one.hand_over()
    gate.await_call()  # it is about to read, and knows of no trial
    one.tables.changed = gate._real
    number = claim(one)
    note_all(one, number, 0.5)
    gate.open()
    come(one)
    assert seen(one, number).intermediate_values == {1: 0.5}
    one.flush()
    assert mirrors.stored == view(one)


# --- trials that others take over -------------------------------------------------------------------------------------


@pytest.mark.parametrize("telling", [come, Mirror.flush])
@pytest.mark.parametrize("told", [None, TrialState.COMPLETE, TrialState.FAIL])
def test_what_is_noted_of_a_trial_that_another_has_taken_over_is_refused_and_that_is_told_once(
    mirrors, join, telling, told
):
    one, two = join(), join()
    kept, lost = claim(one), claim(one)
    one.set_trial_intermediate_value(lost, 1, 0.1)
    one.flush()
    two.tables.take_back([lost])
    after = mirrors.stored[1]
    note_all(one, kept, 0.5)
    note_all(one, lost, 0.9)
    if told is not None:
        one.set_trial_state_values(lost, told, [0.9] if told == TrialState.COMPLETE else None)
        assert seen(one, lost).state == told
    assert telling(one) == [after.number]
    assert seen(one, lost) == after
    assert (after.state, after.intermediate_values) == (TrialState.FAIL, {1: 0.1})
    assert TrialNotes.of(after).failure == "interrupted"
    # Late reports disappear: who still trains it need not know yet.
    note_all(one, lost, 0.9)
    assert one.set_trial_state_values(lost, TrialState.COMPLETE, [0.9]) is False
    assert [telling(one) for _ in range(3)] == [[], [], []]
    assert view(one) == mirrors.stored
    assert mirrors.stored[1] == after
    assert mirrors.stored[0].intermediate_values == {1: 0.5}
    assert one.running == [kept]


def test_what_is_noted_while_a_refusal_is_under_way_is_refused_too(mirrors, join):
    one, two = join(), join()
    lost = claim(one)
    two.tables.take_back([lost])
    one.tables.write = gate = Gate(one.tables.write)
    note_all(one, lost, 0.1)
    one.hand_over()
    gate.await_call()
    note_all(one, lost, 0.2)
    one.set_trial_state_values(lost, TrialState.COMPLETE, [0.2])
    gate.open()
    assert one.flush() == [0]
    assert one.flush() == []
    assert view(one) == mirrors.stored
    assert seen(one, lost).state == TrialState.FAIL


def test_who_works_alone_sees_what_a_trial_has_come_to_that_was_taken_over(mirrors, join):
    one = join(shared=False)
    lost = claim(one)
    one.tables.take_back([lost])
    one.set_trial_state_values(lost, TrialState.COMPLETE, [0.5])
    assert one.flush() == [0]
    assert view(one) == mirrors.stored


def test_who_takes_a_trial_over_sees_all_that_was_reported_of_it(join):
    one, two = join(), join()
    theirs = claim(one, "one")
    one.set_trial_intermediate_value(theirs, 1, 0.5)
    one.flush()
    two.flush()
    assert seen(two, theirs).intermediate_values == {1: 0.5}
    one.set_trial_intermediate_value(theirs, 2, 0.25)
    one.give_back()
    again = claim(two, "two")
    assert seen(two, again).user_attrs["rerun_of"] == seen(two, theirs).number
    assert seen(two, theirs).intermediate_values == {1: 0.5, 2: 0.25}
    assert seen(two, theirs).state == TrialState.FAIL


def test_what_is_given_back_is_written_first_and_waits_for_the_next(mirrors, join):
    one, two = join(), join()
    ended, mine, theirs = claim(one), claim(one), claim(two)
    note_all(one, mine, 0.5)
    one.set_trial_state_values(ended, TrialState.COMPLETE, [0.5])
    one.give_back()
    assert one.running == []
    assert [(trial.state, TrialNotes.of(trial).failure) for trial in mirrors.stored] == [
        (TrialState.COMPLETE, None),
        (TrialState.FAIL, "interrupted"),
        (TrialState.RUNNING, None),
        (TrialState.WAITING, None),
    ]
    assert seen(one, mine).intermediate_values == {1: 0.5}
    note_all(one, mine, 0.9)
    assert one.flush() == []  # it was no loss
    one.give_back()
    assert view(one) == mirrors.stored
    assert len(mirrors.stored) == 4
    assert TrialNotes.of(seen(two, claim(two))).rerun_of == seen(one, mine).number
    assert set(two.running) >= {theirs}


def test_a_loss_that_giving_back_has_come_upon_is_told_by_the_next_exchange(mirrors, join):
    one, two = join(), join()
    lost = claim(one)
    two.tables.take_back([lost])
    note_all(one, lost, 0.5)
    one.give_back()
    assert view(one) == mirrors.stored
    assert one.flush() == [0]


def test_what_is_noted_in_the_moment_of_giving_back_is_refused_and_is_no_loss(mirrors, join):
    one = join()
    number = claim(one)
    real = one.tables.take_back

    def take_back(lost):  # as a thread that asks for trials may note something
        note_all(one, number, 0.5)
        real(lost)

    one.tables.take_back = take_back
    one.give_back()
    assert one.flush() == []
    assert view(one) == mirrors.stored
    assert seen(one, number).intermediate_values == {}
