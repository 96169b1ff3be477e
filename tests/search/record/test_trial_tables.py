"""What processes of a study do in its database at the same moment: each place is given once, nothing half-written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import pytest
import sqlalchemy
from made_database import at_once, commits, connected, database, new_study
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import text

from search.record.trial_tables import GIVEN_OUT, Noted, TrialTables
from search.setup.optuna_internals import fixed_parameters, id_of_trial, waiting_trial
from search.trials.notes import TrialNotes


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request, tmp_path_factory) -> Iterator[str]:
    with database(request.param, tmp_path_factory.mktemp("tables")) as url:
        yield url


@pytest.fixture
def tables(storage) -> TrialTables:
    return TrialTables(storage, new_study(storage))


def planned(count: int) -> list[FrozenTrial]:
    return [waiting_trial({"x": index}, TrialNotes.as_attributes(ordinal=index)) for index in range(count)]


def trials_of(tables: TrialTables) -> list[FrozenTrial]:
    return tables.storage.get_all_trials(tables.study_id)


def given(tables: TrialTables) -> int:
    return tables.storage.get_study_user_attrs(tables.study_id)[GIVEN_OUT]


def claim(tables: TrialTables, most: int = 9, worker: str = "me") -> FrozenTrial:
    (number,) = tables.claim(most, worker)
    return tables.storage.get_trial(number)


def one_more(tables: TrialTables) -> TrialTables:
    """The same study, as another process has it."""
    return TrialTables(connected(str(tables.storage.url)), tables.study_id)


# --- ordinals -----------------------------------------------------------------------------------------


def test_what_is_planned_is_enqueued_once(tables):
    tables.begin(planned(2))
    tables.begin(planned(2))
    tables.begin(planned(3))
    found = trials_of(tables)
    assert [trial.user_attrs["ordinal"] for trial in found] == [0, 1, 2]
    assert [fixed_parameters(trial) for trial in found] == [{"x": 0}, {"x": 1}, {"x": 2}]
    assert {trial.state for trial in found} == {TrialState.WAITING}
    assert given(tables) == 3


def test_the_ordinals_that_one_alone_has_given_out_are_taken(tables):
    ended = create_trial(state=TrialState.FAIL, user_attrs=TrialNotes.as_attributes(ordinal=4))
    tables.storage.create_new_trial(tables.study_id, ended)
    tables.begin(planned(1))
    assert [TrialNotes.of(claim(tables)).ordinal for _ in range(3)] == [0, 5, 6]


def test_a_trial_is_claimed_running_with_its_place_and_its_worker(tables):
    tables.begin(planned(1))
    before = datetime.now()
    first, second = claim(tables, 2, "one"), claim(tables, 2, "two")
    assert not tables.claim(2, "one")
    for index, (trial, worker) in enumerate(((first, "one"), (second, "two"))):
        assert (trial.number, trial.state) == (index, TrialState.RUNNING)
        assert trial.user_attrs == {"ordinal": index, "worker": worker}
        assert trial.datetime_start >= before
        assert tables.storage.get_trial(id_of_trial(trial)) == trial
    assert given(tables) == 2


def test_a_trial_that_waits_without_a_place_gets_one(tables):
    tables.begin([])
    tables.storage.create_new_trial(tables.study_id, create_trial(state=TrialState.WAITING))
    assert [TrialNotes.of(claim(tables)).ordinal for _ in range(2)] == [0, 1]
    assert given(tables) == 2


def test_several_are_claimed_at_once_those_that_wait_first(tables):
    tables.begin(planned(2))
    tables.storage.create_new_trial(tables.study_id, create_trial(state=TrialState.WAITING))
    numbers = tables.claim(5, "me", 4)
    found = [tables.storage.get_trial(number) for number in numbers]
    assert [(trial.number, TrialNotes.of(trial).ordinal) for trial in found] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert {trial.state for trial in found} == {TrialState.RUNNING}
    assert len(tables.claim(5, "me", 4)) == 1
    assert tables.claim(5, "me", 4) == []


def test_where_more_ordinals_were_given_out_those_are_run_that_are_lacking(tables):
    tables.begin(planned(5))
    tables.take_back(tables.claim(5, "me", 2))  # which are run again, and were no results
    told = tables.claim(3, "me", 2)[0]
    tables.write({told: Noted(state=TrialState.COMPLETE, values=[0.5], ended=datetime.now())})
    assert [len(tables.claim(3, "me", 4)) for _ in range(2)] == [1, 0]
    assert len(tables.claim(5, "me", 4)) == 2


@pytest.mark.parametrize(("enqueued", "count"), [(0, 1), (3, 1), (3, 3)])
def test_of_many_that_claim_at_once_each_gets_ordinals_of_its_own(tables, enqueued, count):
    most = 20

    def work(number: int) -> list[FrozenTrial]:
        mine, got = one_more(tables), []
        mine.begin(planned(enqueued))
        while numbers := mine.claim(most, f"worker {number}", count):
            got += [mine.storage.get_trial(one) for one in numbers]
        mine.storage.engine.dispose()
        return got

    claimed = [trial for got in at_once(work, 6) for trial in got]
    assert sorted(TrialNotes.of(trial).ordinal for trial in claimed) == list(range(most))
    assert sorted(trial.number for trial in claimed) == list(range(most))
    assert sorted(map(id_of_trial, trials_of(tables))) == sorted(map(id_of_trial, claimed))
    assert given(tables) == most


# --- taking over ------------------------------------------------------------------------------------------------------


def test_a_trial_that_is_taken_back_is_run_again_in_its_place_as_it_was_drawn(tables):
    tables.begin(planned(1))
    trial = claim(tables)
    number = id_of_trial(trial)
    params = {"width": (3.0, IntDistribution(1, 9)), "pooling": (1.0, CategoricalDistribution(["average", "max"]))}
    tables.write({number: Noted(params=params, user_attrs={"spec": {"any": 1}}, intermediate_values={1: 0.5})})
    tables.take_back([number])
    gone, again = trials_of(tables)
    assert (gone.state, TrialNotes.of(gone).failure) == (TrialState.FAIL, "interrupted")
    assert gone.datetime_complete is not None
    assert (gone.intermediate_values, TrialNotes.of(gone).worker) == ({1: 0.5}, "me")
    assert again.state == TrialState.WAITING
    assert fixed_parameters(again) == {"x": 0, "width": 3, "pooling": "max"}
    assert again.user_attrs == {"rerun_of": 0, "ordinal": 0}
    taken = claim(tables)
    assert (taken.number, TrialNotes.of(taken).ordinal, given(tables)) == (1, 0, 1)
    tables.take_back([id_of_trial(taken)])  # and once more
    assert trials_of(tables)[2].user_attrs == {"rerun_of": 1, "ordinal": 0}
    assert fixed_parameters(trials_of(tables)[2]) == fixed_parameters(again)


def test_what_has_ended_or_waits_is_not_taken_back(tables):
    tables.begin(planned(3))
    ended, running = claim(tables), claim(tables)
    tables.write({id_of_trial(ended): Noted(state=TrialState.COMPLETE, values=[1.0], ended=datetime.now())})
    waiting = trials_of(tables)[2]
    tables.take_back([id_of_trial(ended), id_of_trial(waiting)])
    tables.take_back([])
    tables.take_back([10**6])
    found = [trial.state for trial in trials_of(tables)]
    assert found == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING]
    assert running.number == 1


def test_of_several_that_take_over_at_once_one_does(tables):
    lost = [id_of_trial(claim(tables, 3)) for _ in range(3)]

    def work(_: int) -> None:
        mine = one_more(tables)
        mine.take_back(lost)
        mine.storage.engine.dispose()

    at_once(work, 4)
    states = Counter(trial.state for trial in trials_of(tables))
    assert states == {TrialState.FAIL: 3, TrialState.WAITING: 3}
    again = [TrialNotes.of(trial) for trial in trials_of(tables) if trial.state == TrialState.WAITING]
    assert sorted((one.rerun_of, one.ordinal) for one in again) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("turn", range(3))
def test_what_is_told_and_taken_over_at_once_is_one_of_both(tables, turn):
    number = id_of_trial(claim(tables, 1))
    told = Noted(state=TrialState.COMPLETE, values=[1.0], ended=datetime.now())

    def work(which: int) -> set[int] | None:
        mine = one_more(tables)
        try:
            return mine.write({number: told}) if which else mine.take_back([number])
        finally:
            mine.storage.engine.dispose()

    refused = next(result for result in at_once(work, 2) if result is not None)
    states = [trial.state for trial in trials_of(tables)]
    assert (refused, states) in [
        (set(), [TrialState.COMPLETE]),
        ({number}, [TrialState.FAIL, TrialState.WAITING]),
    ]


def grow_old(tables: TrialTables, number: int, seconds: float) -> None:
    ago = {"sqlite": f"datetime('now', '-{seconds} seconds')", "postgresql": f"now() - interval '{seconds} seconds'"}
    statement = f"UPDATE trial_heartbeats SET heartbeat = {ago[tables.storage.engine.name]} WHERE trial_id = {number}"
    with tables.storage.engine.begin() as connection:
        assert connection.execute(text(statement)).rowcount == 1


def test_running_trials_are_silent_until_their_next_sign_of_life(tables):
    old, fresh, ended = (id_of_trial(claim(tables)) for _ in range(3))
    assert tables.silent_for().keys() == {old, fresh, ended}
    assert max(tables.silent_for().values()) < 30
    for number in (old, ended):
        grow_old(tables, number, 3600)
    grow_old(tables, fresh, 1000)
    tables.write({ended: Noted(state=TrialState.FAIL, ended=datetime.now())})
    silent_for = tables.silent_for()
    assert silent_for.keys() == {old, fresh}
    assert 3600 <= silent_for[old] < 3630
    assert 1000 <= silent_for[fresh] < 1030
    tables.beat([fresh])
    tables.beat([])
    silent_for = tables.silent_for()
    assert silent_for[old] >= 3600
    assert silent_for[fresh] < 30
    tables.beat([old])
    assert tables.silent_for()[old] < 30


# --- what is noted ----------------------------------------------------------------------------------------------------


def test_what_is_noted_of_many_trials_goes_in_as_one(tables, storage):
    numbers = [id_of_trial(claim(tables)) for _ in range(4)]
    done = commits(storage)
    odd = {1: math.nan, 2: math.inf, 3: -math.inf, 4: 0.25}
    params = {"rate": (0.5, FloatDistribution(0, 1))}
    noted = {
        n: Noted(intermediate_values=odd, params=params, user_attrs={"a": [1]}, system_attrs={"b": "c"})
        for n in numbers
    }
    noted[numbers[0]].state, noted[numbers[0]].values, noted[numbers[0]].ended = TrialState.COMPLETE, [math.inf], None
    assert tables.write(noted) == set()
    assert len(done) == 1
    for trial in trials_of(tables):
        assert math.isnan(trial.intermediate_values.pop(1))
        assert trial.intermediate_values == {2: math.inf, 3: -math.inf, 4: 0.25}
        assert (trial.params, trial.distributions) == ({"rate": 0.5}, {"rate": FloatDistribution(0, 1)})
        assert (trial.user_attrs["a"], trial.system_attrs) == ([1], {"b": "c"})
    assert trials_of(tables)[0].value == math.inf
    done.clear()
    assert tables.write({}) == set()
    assert not done


def test_what_is_noted_again_replaces_what_was(tables):
    number = id_of_trial(claim(tables))
    first = {"rate": (0.5, FloatDistribution(0, 1))}
    later = {"rate": (1.5, FloatDistribution(0, 2))}
    tables.write(
        {number: Noted(intermediate_values={1: 0.1, 2: math.nan}, params=first, user_attrs={"a": 1, "worker": "other"})}
    )
    tables.write({number: Noted(intermediate_values={2: 0.2, 3: 0.3}, params=later, user_attrs={"a": {"b": None}})})
    (trial,) = trials_of(tables)
    assert trial.intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3}
    assert (trial.params, trial.distributions) == ({"rate": 1.5}, {"rate": FloatDistribution(0, 2)})
    assert trial.user_attrs == {"ordinal": 0, "worker": "other", "a": {"b": None}}


def test_what_is_no_longer_this_processs_is_refused_and_the_rest_goes_in(tables):
    mine, lost = id_of_trial(claim(tables)), id_of_trial(claim(tables))
    tables.take_back([lost])
    before = trials_of(tables)
    noted = Noted(
        intermediate_values={1: 0.5}, user_attrs={"a": 1}, state=TrialState.COMPLETE, values=[1.0], ended=datetime.now()
    )
    unknown = 10**6
    assert tables.write({mine: noted, lost: noted, unknown: noted}) == {lost, unknown}
    after = trials_of(tables)
    assert after[0].state == TrialState.COMPLETE
    assert after[1:] == before[1:]


def test_a_transaction_that_fails_changes_nothing(tables, storage):
    number = id_of_trial(claim(tables))
    before = trials_of(tables)

    def refuse(*_) -> None:
        raise sqlalchemy.exc.OperationalError("COMMIT", {}, Exception("away"))

    sqlalchemy.event.listen(storage.engine, "commit", refuse)
    noted = Noted(
        intermediate_values={1: 0.5}, user_attrs={"a": 1}, state=TrialState.COMPLETE, values=[1.0], ended=datetime.now()
    )
    works = [lambda: tables.write({number: noted}), lambda: tables.claim(9, "me"), lambda: tables.take_back([number])]
    for work in works:
        with pytest.raises(StorageInternalError):
            work()
    sqlalchemy.event.remove(storage.engine, "commit", refuse)
    assert trials_of(tables) == before
    assert given(tables) == 1


def test_changed_are_the_new_ones_and_those_that_had_not_ended(tables):
    tables.begin(planned(3))
    ended, running = claim(tables), claim(tables)
    tables.write({id_of_trial(ended): Noted(state=TrialState.COMPLETE, values=[1.0], ended=datetime.now())})
    known = {id_of_trial(trial): trial.state for trial in trials_of(tables)}
    assert [trial.number for trial in tables.changed({})] == [0, 1, 2]
    assert [trial.number for trial in tables.changed(known)] == [1, 2]
    tables.take_back([id_of_trial(running)])
    assert [trial.number for trial in tables.changed(known)] == [1, 2, 3]
    assert [trial.number for trial in tables.changed(dict.fromkeys(known, TrialState.COMPLETE))] == [3]


def test_of_another_study_in_the_database_nothing_is_touched(tables, storage):
    other = TrialTables(storage, new_study(storage))
    number = id_of_trial(claim(other))
    tables.take_back([number])
    assert tables.write({number: Noted(user_attrs={"a": 1})}) == {number}
    assert [trial.user_attrs for trial in trials_of(other)] == [{"ordinal": 0, "worker": "me"}]
    assert TrialNotes.of(claim(tables)).ordinal == 0
    assert tables.changed({}) == trials_of(tables)
