"""A database that is away: what was noted is kept and written when it is back, in order; nobody hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import sqlalchemy
from made_mirrors import PATIENCE_S, Clock, Gate, away, claim, view
from optuna.distributions import FloatDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, ProgrammingError

from search.record import outages
from search.record.mirror import Mirror, StudyGoneError


@pytest.fixture
def mirror(mirrors) -> Mirror:
    return mirrors.join()


@pytest.fixture
def pauses(mirror, monkeypatch) -> list[float]:
    """The pauses that are made between two tries, and take no time."""
    made: list[float] = []
    monkeypatch.setattr(mirror.patience, "wait", made.append)  # which returns None: nobody has lost patience
    return made


class Failing:
    """Stands before a function: its first calls raise instead, or after it was done."""

    def __init__(self, real: Callable, errors: list[Exception], *, after: bool = False) -> None:
        self._real, self._errors, self._after, self.calls = real, errors, after, 0

    def __call__(self, *arguments):
        self.calls += 1
        if self._errors and self._after:
            self._real(*arguments)
        if self._errors:
            raise self._errors.pop(0)
        return self._real(*arguments)


def refuse_transactions(mirror: Mirror, times: int) -> None:
    """Lets a mirror's next transactions end in that the database is gone: in the midst of what Optuna does."""
    left = [away()] * times

    def refuse(*_) -> None:
        if left:
            raise left.pop()

    sqlalchemy.event.listen(mirror.database.engine, "commit", refuse)


REFUSED = IntegrityError("INSERT", {}, Exception("refused"))


# --- tried again ------------------------------------------------------------------------------------------------------


def test_what_was_noted_is_written_when_the_database_is_back(mirrors, mirror, pauses):
    number = claim(mirror)
    mirror.set_trial_intermediate_value(number, 1, 0.5)
    refuse_transactions(mirror, 9)
    mirror.flush()
    assert mirrors.stored == view(mirror)
    assert mirrors.stored[0].intermediate_values == {1: 0.5}
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5])


@pytest.mark.parametrize(
    "work",
    [
        lambda mirror: mirror.claim(9, "me"),
        lambda mirror: mirror.give_back(),
        lambda mirror: mirror.create_new_trial(mirror.tables.study_id),
        lambda mirror: mirror.set_study_user_attr(mirror.tables.study_id, "a", 1),
        lambda mirror: mirror.set_study_system_attr(mirror.tables.study_id, "a", 1),
        lambda mirror: mirror.get_study_user_attrs(mirror.tables.study_id),
        lambda mirror: mirror.get_study_system_attrs(mirror.tables.study_id),
        lambda mirror: mirror.get_study_directions(mirror.tables.study_id),
    ],
)
def test_whatever_is_asked_of_the_database_is_tried_again(mirrors, mirror, pauses, work, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # Optuna's own pauses
    claim(mirror)
    refuse_transactions(mirror, 1)
    work(mirror)
    mirror.flush()
    assert len(pauses) <= 1  # Optuna itself tries some things again
    assert view(mirror) == mirrors.stored


def test_a_trial_that_waits_is_begun_when_the_database_is_back(mirrors, mirror, pauses):
    study = mirrors.study_of(mirror)
    study.enqueue_trial({"rate": 0.5})
    refuse_transactions(mirror, 2)
    assert study.ask().number == 0
    assert len(pauses) == 2
    assert view(mirror) == mirrors.stored


def test_after_ten_minutes_it_is_raised_and_after_a_second_it_was_said_once(mirror, monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    begun = clock.now
    mirror.tables.write = Failing(mirror.tables.write, [away()] * 1000)
    mirror.set_trial_user_attr(claim(mirror), "a", 1)
    with pytest.raises(OperationalError):
        mirror.flush()
    assert 600 < clock.now - begun < 610
    assert capsys.readouterr().err.count("the study: cannot be reached; it is tried again for 10 minutes") == 1


def test_of_a_moments_absence_nothing_is_said(mirror, pauses, capsys):
    mirror.tables.write = Failing(mirror.tables.write, [away()] * 3)
    mirror.set_trial_user_attr(claim(mirror), "a", 1)
    mirror.flush()
    assert len(pauses) == 3
    assert capsys.readouterr().err == ""


class SqliteError(Exception):
    """As SQLite's own driver has them."""


SqliteError.__module__ = "sqlite3"


def of_server(state: str, name: str = "sqlstate") -> OperationalError:
    """An error of a server, as psycopg, or psycopg2, has it."""
    cause = Exception("told")
    setattr(cause, name, state)
    return OperationalError("SELECT", {}, cause)


def of_optuna(cause: Exception | None) -> StorageInternalError:
    error = StorageInternalError("an exception is raised during the commit")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (away(), True),  # no state: there was no connection
        (of_optuna(away()), True),
        (InterfaceError("SELECT", {}, Exception("closed")), True),
        (OperationalError("SELECT", {}, SqliteError("database is locked")), True),
        (OperationalError("SELECT", {}, SqliteError("database table is locked: trials")), True),
        (OperationalError("SELECT", {}, SqliteError("disk I/O error")), False),
        (OperationalError("SELECT", {}, SqliteError("no such table: trials")), False),
        (of_optuna(OperationalError("SELECT", {}, SqliteError("attempt to write a readonly database"))), False),
        *((of_server(state), True) for state in ("08006", "08001", "40001", "40P01", "57P01", "57P03", "53300")),
        *((of_server(state), False) for state in ("53100", "28P01", "3D000", "42P01", "25006")),
        (of_server("57P01", "pgcode"), True),
        (of_server("53100", "pgcode"), False),
        (DBAPIError("SELECT", {}, Exception("cut off"), connection_invalidated=True), True),
        (ProgrammingError("SELECT", {}, Exception("no such column")), False),
        (REFUSED, False),
        (of_optuna(None), False),
        (sqlalchemy.exc.ArgumentError("none"), False),
    ],
    ids=repr,
)
def test_what_passes_is_waited_for_and_what_does_not_is_raised_at_once(mirror, pauses, error, passes):
    work = Failing(lambda: "done", [error])
    if passes:
        assert mirror.retried(work) == "done"
    else:
        with pytest.raises(type(error)) as raised:
            mirror.retried(work)
        assert raised.value is error
    assert (len(pauses), work.calls) == (int(passes), 1 + passes)


def test_other_errors_are_not_waited_for(mirror, pauses):
    work = Failing(lambda: None, [KeyError("none")])
    with pytest.raises(KeyError):
        mirror.retried(work)
    assert not pauses


@pytest.mark.parametrize(("at_once", "most"), [(False, 2.0), (True, 0.2)])
def test_once_somebody_has_asked_to_stop_it_is_waited_for_a_moment_at_most_or_not_at_all(
    mirror, monkeypatch, at_once, most
):
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    begun, asked = clock.now, []

    def work() -> None:
        if clock.now > begun + 30 and not asked:
            asked.append(clock.now)
            mirror.patience.hurry(at_once=at_once)
        raise away()

    with pytest.raises(OperationalError):
        mirror.retried(work)
    assert clock.now - asked[0] < most
    begun = clock.now
    with pytest.raises(OperationalError):  # and whatever is asked of it from then on
        mirror.retried(work)
    assert clock.now - begun < most


def test_a_pause_ends_where_somebody_asks_to_stop(mirror):
    threading.Timer(0.2, mirror.patience.hurry).start()
    begun = time.monotonic()
    assert not mirror.patience.wait(60)
    assert time.monotonic() - begun < PATIENCE_S


@pytest.mark.parametrize("work", [lambda mirror: mirror.claim(9, "me"), lambda mirror: mirror.flush()])
def test_a_study_that_was_deleted_is_told_in_a_line(mirrors, mirror, work):
    mirror.set_trial_user_attr(claim(mirror), "a", 1)
    mirrors.storage.delete_study(mirrors.study)
    with pytest.raises(StudyGoneError, match=r"^the study: not in the database any more$"):
        work(mirror)


# --- an exchange that failed ------------------------------------------------------------------------------------------


def test_what_was_noted_before_an_exchange_that_failed_is_written_with_the_next_in_its_order(mirrors, mirror):
    early, late = claim(mirror), claim(mirror)
    mirror.set_trial_intermediate_value(early, 1, 0.1)
    mirror.set_trial_intermediate_value(early, 2, 0.2)
    mirror.set_trial_user_attr(early, "a", "before")
    mirror.tables.write = Failing(mirror.tables.write, [REFUSED])
    with pytest.raises(IntegrityError):
        mirror.flush()
    assert mirrors.stored[0].intermediate_values == {}
    mirror.set_trial_intermediate_value(early, 2, 0.9)
    mirror.set_trial_user_attr(early, "a", "after")
    mirror.set_trial_state_values(early, TrialState.COMPLETE, [0.5])
    mirror.set_trial_intermediate_value(late, 1, 0.3)
    mirror.flush()
    assert mirrors.stored == view(mirror)
    first, second = mirrors.stored
    assert (first.state, first.intermediate_values, first.user_attrs["a"]) == (
        TrialState.COMPLETE,
        {1: 0.1, 2: 0.9},
        "after",
    )
    assert second.intermediate_values == {1: 0.3}


def test_what_was_noted_while_an_exchange_failed_comes_after_what_it_was_to_write(mirrors, mirror):
    number, other = claim(mirror), claim(mirror)
    gate = Gate(Failing(mirror.tables.write, [REFUSED]))
    mirror.tables.write = gate
    mirror.set_trial_intermediate_value(number, 1, 0.1)
    mirror.set_trial_user_attr(number, "a", "before")
    mirror.hand_over()
    gate.await_call()
    mirror.set_trial_user_attr(number, "a", "after")
    mirror.set_trial_intermediate_value(other, 1, 0.3)
    gate.open()
    with pytest.raises(IntegrityError):
        mirror.flush()
    assert mirrors.stored[0].intermediate_values == {}
    mirror.flush()
    assert mirrors.stored == view(mirror)
    assert (mirrors.stored[0].intermediate_values, mirrors.stored[0].user_attrs["a"]) == ({1: 0.1}, "after")
    assert mirrors.stored[1].intermediate_values == {1: 0.3}


def test_handing_over_raises_what_an_exchange_failed_of_and_the_next_one_writes(mirrors, mirror):
    number = claim(mirror)
    mirror.tables.write = Failing(mirror.tables.write, [REFUSED, REFUSED])
    for step in (1, 2):
        mirror.set_trial_intermediate_value(number, step, step / 8)
        mirror.hand_over()
        ends = time.monotonic() + PATIENCE_S
        with pytest.raises(IntegrityError):
            while time.monotonic() < ends:
                mirror.hand_over()
    mirror.flush()
    assert mirrors.stored[0].intermediate_values == {1: 0.125, 2: 0.25}


@pytest.mark.parametrize("refused", [False, True])
def test_who_is_interrupted_while_waiting_finds_the_exchange_again(mirrors, mirror, monkeypatch, refused):
    number = claim(mirror)
    mirror.set_trial_intermediate_value(number, 1, 0.1)
    mirror.set_trial_intermediate_value(number, 2, 0.2)
    gate = mirror.tables.write = Gate(Failing(mirror.tables.write, [REFUSED] if refused else []))
    with monkeypatch.context() as patched:
        patched.setattr(outages, "wait", Failing(outages.wait, [KeyboardInterrupt()]))
        with pytest.raises(KeyboardInterrupt):
            mirror.flush()
    mirror.set_trial_intermediate_value(number, 1, 0.9)
    gate.open()
    with pytest.raises(IntegrityError) if refused else nullcontext():
        mirror.flush()
    mirror.flush()
    assert mirrors.stored[0].intermediate_values == {1: 0.9, 2: 0.2}


def end_unheard(mirror: Mirror) -> tuple[int, int]:
    """Lets a transaction go in, and its connection end before that is heard: one trial has ended in it, one not."""
    ended, running = claim(mirror), claim(mirror)
    for number in (ended, running):
        mirror.set_trial_param(number, "rate", 0.5, FloatDistribution(0, 1))
        mirror.set_trial_intermediate_value(number, 1, 0.5)
    mirror.set_trial_state_values(ended, TrialState.COMPLETE, [0.5])
    mirror.tables.write = Failing(mirror.tables.write, [away()], after=True)
    return ended, running


def test_where_only_the_answer_was_lost_what_was_written_stays_as_it_is(mirrors, mirror, pauses):
    _, running = end_unheard(mirror)
    mirror.flush()
    assert len(pauses) == 1
    assert mirrors.stored == view(mirror)
    assert [trial.state for trial in mirrors.stored] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert mirror.running == [running]


def test_where_only_the_answer_was_lost_no_trial_is_told_as_taken_over(mirror, pauses):
    end_unheard(mirror)
    assert mirror.flush() == []


def test_a_place_that_was_given_without_that_being_heard_is_seen_and_left_to_who_takes_over(mirrors, mirror, pauses):
    mirror.tables.claim = Failing(mirror.tables.claim, [away()], after=True)
    number = claim(mirror)
    assert [trial.number for trial in view(mirror)] == [0, 1]
    assert mirror.running == [number]
    assert view(mirror) == mirrors.stored


# --- closing ----------------------------------------------------------------------------------------------------------


def test_closing_while_the_database_is_away_raises_and_does_not_hang(mirror):
    mirror.set_trial_user_attr(claim(mirror), "a", 1)
    mirror.tables.write = Failing(mirror.tables.write, [away()] * 1000)
    mirror.hand_over()
    ends = time.monotonic() + PATIENCE_S
    while mirror.tables.write.calls < 3:  # in the midst of a pause
        assert time.monotonic() < ends
        time.sleep(0.01)
    before = time.monotonic()
    with pytest.raises(OperationalError):
        mirror.close()
    assert time.monotonic() - before < 0.3, "the pause was waited for"
    assert not mirror.is_open
    mirror.close()
    for thread in mirror._writer._threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_closing_where_nothing_is_under_way_tries_once(mirror):
    mirror.set_trial_user_attr(claim(mirror), "a", 1)
    mirror.tables.write = Failing(mirror.tables.write, [away()] * 1000)
    with pytest.raises(OperationalError):
        mirror.close()
    assert mirror.tables.write.calls == 1


def test_who_leaves_waits_for_an_answer_that_takes_its_time(mirror, monkeypatch):
    monkeypatch.setattr(outages, "ANSWER_S", 0.1)
    mirror.set_trial_user_attr(claim(mirror), "a", 1)
    write, done = mirror.tables.write, []

    def slowly(noted):
        time.sleep(0.5)
        done.append(noted)
        return write(noted)

    mirror.tables.write = slowly
    mirror.close()
    assert done
