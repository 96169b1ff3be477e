"""Processes that work on one study: who takes over what the dead have left, and what who leaves gives back."""

from __future__ import annotations

import threading
import time

import pytest
from made_crew import DEAD, ELSEWHERE, Crews, Process
from made_database import GRACE_S
from made_mirrors import PATIENCE_S, Clock, away, claim
from optuna.trial import TrialState
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from search.record import crew as module
from search.record.connectivity import Connectivity
from search.record.crew import FINISHER, WORKER_KEY
from search.record.owner import Owner
from search.trials.notes import TrialNotes

pytestmark = pytest.mark.usefixtures("patience")
BOTH = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
"""For tests of what two do in the database at once: the others are the same in every one."""


@BOTH
def test_trials_of_who_has_died_here_or_has_left_are_taken_over_and_those_of_the_living_are_not(crews, join):
    one, two = join(), join()
    crews.put(WORKER_KEY + "dead", **DEAD)
    crews.put(WORKER_KEY + "elsewhere", **ELSEWHERE)
    crews.put(WORKER_KEY + "silent", **ELSEWHERE, beat=time.time() - 3600)  # its heartbeats say when
    other = crews.join()
    for worker in ("dead", "nobody", "elsewhere", "silent"):
        claim(other, worker)
    claim(one.mirror, one.name)
    claim(two.mirror, two.name)
    for process in (one, two):
        process.mirror.flush()
        process.crew.take_over()
    running, gone, again = TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING
    assert crews.states == [gone, gone, running, running, running, running, again, again]
    assert [TrialNotes.of(trial).rerun_of for trial in crews.stored[6:]] == [0, 1]


def grow_old(crews: Crews) -> None:
    """Lets every heartbeat be older than the grace."""
    ago = {"sqlite": "datetime('now', '-600 seconds')", "postgresql": "now() - interval '600 seconds'"}
    with crews.storage.engine.begin() as connection:
        connection.execute(text(f"UPDATE trial_heartbeats SET heartbeat = {ago[crews.storage.engine.name]}"))


@BOTH
def test_nobody_is_taken_for_dead_before_its_own_grace_has_passed(crews, join):
    one = join(grace=120)
    crews.put(WORKER_KEY + "patient", **ELSEWHERE, grace=3600)
    crews.put(WORKER_KEY + "hasty", **ELSEWHERE, grace=2)
    other = crews.join()
    claim(other, "patient")
    claim(other, "hasty")
    one.mirror.flush()
    grow_old(crews)
    one.crew.take_over()
    assert crews.states == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]
    assert Owner.read(crews.attributes[WORKER_KEY + one.name]).grace == 120


@BOTH
def test_trials_without_a_heartbeat_are_taken_over_but_those_of_who_looks(crews, join):
    one = join()
    crews.put(WORKER_KEY + "elsewhere", **ELSEWHERE)
    claim(crews.join(), "elsewhere")
    claim(one.mirror, one.name)
    one.crew.take_over()
    assert crews.states == [TrialState.RUNNING] * 2
    grow_old(crews)
    one.crew.take_over()
    assert crews.states == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]


def test_after_a_time_without_the_database_nobody_is_taken_for_dead_for_the_grace(crews, join, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    one = join(grace=60)
    crews.put(WORKER_KEY + "elsewhere", **ELSEWHERE)
    claim(crews.join(), "elsewhere")
    one.mirror.flush()
    clock.now += 31  # nobody could give a sign meanwhile
    grow_old(crews)
    one.crew.take_over()
    for _ in range(5):
        clock.now += 11
        one.crew.take_over()
    assert crews.states == [TrialState.RUNNING]
    clock.now += 11
    one.crew.take_over()
    assert crews.states == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.parametrize(("answer", "taken"), [(0.6, True), (1.3, False)])
def test_a_database_that_answers_slowly_is_one_that_answers_unless_signs_come_too_late(capsys, answer, taken):
    now, database = 0.0, Connectivity(6.0, 1.0, "here", now=0.0)
    held = []
    for _ in range(10):
        now += 1.0
        for step in (
            database.begin_round,
            database.answered,
            database.answered,
            lambda now: held.append(database.is_steady(now)),
        ):
            now += answer
            step(now)
    assert all(held) if taken else not any(held[1:])
    said = "note: here: answers too slowly for --grace 6: nobody is taken for dead"
    assert capsys.readouterr().err.count(said) == (not taken)


def test_a_database_that_stood_still_within_a_round_is_believed_after_the_grace_only():
    now, held, database = 0.0, [], Connectivity(6.0, 1.0, "here", now=0.0)
    for number in range(20):
        now += 1.1
        database.begin_round(now)
        now += 3.5 if number == 5 else 0.1
        held.append(database.is_steady(now))
    assert held == [True] * 5 + [False] * 6 + [True] * 9


def beaten(one: Process, number: int) -> bool:
    return one.mirror.tables.silent_for()[number] < 60


def test_a_process_gives_signs_for_its_trials_and_looks_after_those_of_others_by_itself(crews, join):
    one = join(grace=GRACE_S / 4)
    mine = claim(one.mirror, one.name)
    crews.put(WORKER_KEY + "dead", **DEAD)
    claim(crews.join(), "dead")
    one.mirror.flush()
    grow_old(crews)
    ends = time.monotonic() + PATIENCE_S  # a round that was under way may have given its sign before they grew old
    while crews.states != [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING] or not beaten(one, mine):
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert one.mirror.running == [mine]


def test_who_joins_while_others_look_is_not_taken_for_departed(crews, join, monkeypatch):
    one = join()
    real, late = one.mirror.database.get_study_user_attrs, []

    def read(number):
        found = real(number)
        if not late:  # between the look who is there and the one at the trials
            late.append(join())
            claim(late[0].mirror, late[0].name)
            one.mirror.flush()
        return found

    monkeypatch.setattr(one.mirror.database, "get_study_user_attrs", read)
    one.crew.take_over()
    assert crews.states == [TrialState.RUNNING]


@BOTH
def test_who_leaves_gives_back_what_it_ran(crews, join):
    one, two = join(), join()
    lost = claim(one.mirror, one.name)
    one.mirror.set_trial_intermediate_value(lost, 1, 0.5)
    one.crew.elect()
    one.crew.close()
    one.crew.close()
    assert crews.states == [TrialState.FAIL, TrialState.WAITING]
    assert crews.stored[0].intermediate_values == {1: 0.5}
    assert crews.attributes.keys() & {FINISHER, WORKER_KEY + one.name} == set()
    assert TrialNotes.of(two.mirror.get_trial(claim(two.mirror))).rerun_of == 0


def test_who_leaves_lets_a_sign_of_life_that_is_under_way_come_to_its_end(join):
    one = join(grace=0.6)
    under_way, seen = threading.Event(), []

    def beat(_):
        under_way.set()
        time.sleep(0.3)
        seen.append(one.mirror.is_open)

    one.mirror.tables.beat = beat
    assert under_way.wait(PATIENCE_S)
    one.crew.close()
    assert seen
    assert all(seen), "its connection would have stayed open"


def test_who_leaves_while_the_database_is_away_says_so_and_does_not_hang(crews, join, monkeypatch):
    one = join()
    claim(one.mirror, one.name)
    one.mirror.set_trial_user_attr(one.mirror.running[0], "a", 1)
    monkeypatch.setattr(one.mirror, "give_back", lambda: (_ for _ in ()).throw(away()))

    def write(_):
        raise away()

    one.mirror.tables.write = write
    begun = time.monotonic()
    with pytest.raises(SQLAlchemyError):
        one.crew.close()
    assert time.monotonic() - begun < 5
    one.crew.close()
    assert not one.mirror.is_open
