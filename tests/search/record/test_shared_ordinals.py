"""The ordinals of a study that several processes work on: each is given out once, in shares, until all have results."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import optuna
import pytest
from made_crew import DEAD
from made_database import at_once
from made_mirrors import claim, view
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from search.record import crew as module
from search.record.crew import WORKER_KEY, SharedOrdinals
from search.setup.optuna_internals import fixed_parameters
from search.trials.notes import TrialNotes


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """The pauses of who waits for others, which take no time."""
    made: list[float] = []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=time.monotonic, sleep=made.append))
    monkeypatch.setattr(module, "_LOOK_S", -1)  # who else is there is looked for each time
    return made


def sampler_of(place: int) -> RandomSampler:
    return RandomSampler(seed=place)


def taken(given_out: SharedOrdinals) -> list[Trial]:
    """All that a process gets at this moment."""
    found = []
    while (got := given_out.next(sampler_of)) is not None:
        trial, place = got
        assert TrialNotes.of(trial).ordinal == place
        found.append(trial)
    return found


def ordinals(trials: list[Trial]) -> list[int]:
    return [TrialNotes.of(trial).ordinal for trial in trials]


# --- what is planned --------------------------------------------------------------------------------------------------


def test_what_is_planned_is_enqueued_by_whoever_comes_first_and_comes_first(crews, join):
    one, two = join(), join()
    planned = [{"x": 0.25}, {"x": 0.5}]
    given_out = [process.ordinals(4) for process in (one, two)]
    for mine in given_out:
        mine.begin(planned)
        assert mine.is_left
    assert [fixed_parameters(trial) for trial in crews.stored] == planned
    assert view(one.mirror) == view(two.mirror) == crews.stored
    found = taken(given_out[0]) + taken(given_out[1])
    assert ordinals(found) == [0, 1, 2, 3]
    assert [trial.suggest_float("x", 0, 1) for trial in found[:2]] == [0.25, 0.5]
    assert [TrialNotes.of(trial).worker for trial in found] == [one.name] * 2 + [two.name] * 2


def test_a_trial_is_drawn_by_the_sampler_of_its_place(join):
    one = join()
    given_out = one.ordinals(3)
    given_out.begin([])
    found = []
    while (got := given_out.next(sampler_of)) is not None:
        found.append(got[0].suggest_float("x", 0, 1))
    again = [optuna.create_study(sampler=sampler_of(index)).ask().suggest_float("x", 0, 1) for index in range(3)]
    assert found == again


def test_who_begins_takes_over_what_those_have_left_that_are_gone(crews, join):
    crews.put(WORKER_KEY + "dead", **DEAD)
    claim(crews.join(), "dead")
    one = join()
    given_out = one.ordinals(1)
    given_out.begin([])
    (again,) = taken(given_out)
    assert (TrialNotes.of(again).rerun_of, TrialNotes.of(again).ordinal) == (0, 0)


# --- shares -----------------------------------------------------------------------------------------------------------


def test_each_has_its_share_of_what_is_left_at_most(crews, join):
    processes = [join(), join(), join()]
    given_out = [process.ordinals(10) for process in processes]
    found = [taken(mine) for mine in given_out]
    assert [len(mine) for mine in found] == [4, 4, 2]
    assert sorted(ordinals([trial for mine in found for trial in mine])) == list(range(10))
    processes[0].complete(found[0].pop())
    assert taken(given_out[0]) == []
    assert given_out[0].is_left, "it has its share of the nine that are left, and has not asked"
    for trial in found[0]:
        processes[0].complete(trial)
    assert taken(given_out[0]) == []
    assert not given_out[0].is_left, "it has heard that every ordinal is given out"


def test_the_share_grows_when_others_leave_and_what_they_left_comes_first(crews, join):
    one, two = join(), join()
    mine, theirs = one.ordinals(6), two.ordinals(6)
    first = taken(mine)
    assert ordinals(first) == [0, 1, 2]
    assert mine.is_left, "it has its share, and there is more"
    assert ordinals(taken(theirs)) == [3, 4, 5]
    two.crew.close()
    one.mirror.flush()
    again = taken(mine)
    assert ordinals(again) == [3, 4, 5]
    assert [TrialNotes.of(trial).rerun_of for trial in again] == [3, 4, 5]


def test_with_more_processes_than_ordinals_each_may_have_one_until_there_is_none(join):
    given_out = [process.ordinals(2) for process in [join(), join(), join()]]
    assert [len(taken(mine)) for mine in given_out] == [1, 1, 0]
    assert [mine.is_left for mine in given_out] == [True, True, False]


def test_of_several_that_ask_at_once_each_has_ordinals_of_its_own(crews, join):
    processes = [join(), join(), join()]

    def work(which: int) -> list[int]:
        process, found = processes[which], []
        given_out = process.ordinals(12)
        given_out.begin([{"x": 0.5}])
        while got := taken(given_out):
            found += ordinals(got)
            for trial in got:
                process.complete(trial)
        return found

    found = at_once(work, 3)
    assert sorted(place for mine in found for place in mine) == list(range(12))
    assert [trial.number for trial in crews.stored] == list(range(12))


def test_who_asks_in_a_thread_of_its_own_draws_by_what_has_ended_by_now(join):
    one, startup = join(), 3
    mine = one.ordinals(8)

    def by_tpe(ordinal: int) -> TPESampler:
        return TPESampler(n_startup_trials=startup, seed=ordinal)

    def ask() -> tuple[Trial, float]:
        trial, _ = mine.next(by_tpe)
        return trial, trial.suggest_float("x", 0, 1)

    drawn = []
    with ThreadPoolExecutor(1) as asking:
        for _ in range(8):
            trial, x = asking.submit(ask).result()
            one.complete(trial)  # in this thread
            drawn.append(x)
    at_random = [optuna.create_study(sampler=by_tpe(index)).ask().suggest_float("x", 0, 1) for index in range(8)]
    assert [one == other for one, other in zip(drawn, at_random, strict=True)] == [True] * startup + [False] * 5


# --- until all have a result ------------------------------------------------------------------------------------------


def test_who_has_nothing_to_do_waits_until_every_ordinal_has_its_result(crews, join, pauses):
    one, two = join(), join()
    mine, theirs = one.ordinals(2), two.ordinals(2)
    (first,), (second,) = taken(mine), taken(theirs)
    one.complete(first)
    assert taken(mine) == []
    assert not mine.is_left
    assert not mine.is_over
    assert mine.wait()
    assert len(pauses) == 1
    assert module.WAIT_S <= pauses[0] <= module.LONGEST_WAIT_S  # the longer, the slower the database was just now
    two.complete(second)
    assert not mine.wait()
    assert mine.is_over
    assert not mine.is_left
    assert len(pauses) == 1


def test_who_waits_goes_on_at_once_where_somebody_has_left_a_trial(crews, join, pauses):
    one, two = join(), join()
    mine, theirs = one.ordinals(2), two.ordinals(2)
    (first,) = taken(mine)
    taken(theirs)
    one.complete(first)
    assert taken(mine) == []
    two.crew.close()
    assert mine.wait()
    assert mine.is_left
    assert not pauses
    (again,) = taken(mine)
    assert TrialNotes.of(again).rerun_of == 1
    one.complete(again)
    assert not mine.wait()
    assert crews.states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]


def test_what_was_interrupted_is_no_result_and_what_failed_is_one(crews, join):
    one = join()
    given_out = one.ordinals(2)
    lost, failed = taken(given_out)
    one.mirror.tables.take_back([min(one.mirror.running)])
    lost.report(0.5, 1)
    one.study.tell(failed, state=TrialState.FAIL)
    assert one.mirror.flush() == [lost.number]
    assert not given_out.is_over
    (again,) = taken(given_out)
    one.study.tell(again, state=TrialState.PRUNED)
    assert given_out.is_over


def test_a_study_that_is_to_have_more_has_ordinals_again(join):
    one = join()
    few = one.ordinals(1)
    (first,) = taken(few)
    one.complete(first)
    assert few.is_over
    more = one.ordinals(3)
    assert more.is_left
    assert ordinals(taken(more)) == [1, 2]


def test_a_study_that_is_to_have_fewer_runs_no_more_of_those_that_wait_than_it_lacks(crews, join, pauses):
    first = join()
    found = taken(first.ordinals(8))
    for trial in found[:2]:
        first.complete(trial)
    first.crew.close()  # six wait
    one, two = join(), join()
    mine, theirs = one.ordinals(5), two.ordinals(5)
    for given_out in (mine, theirs):
        given_out.begin([])
    ours, (last,) = taken(mine), taken(theirs)
    assert len(ours) == 2
    for trial in ours:
        one.complete(trial)
    assert taken(mine) == []
    assert not mine.is_left, "what waits is not wanted"
    assert mine.wait()
    assert pauses == [module.WAIT_S]
    two.complete(last)
    assert not mine.wait()
    assert crews.states.count(TrialState.WAITING) == 3, "for who goes on with more"
    assert len(taken(one.ordinals(8))) == 2, "its share of them"


@pytest.mark.parametrize(("pages", "claimed"), [(1, 1), (8, 1), (24, 3), (85, 8), (10_000, 8)])
def test_who_has_few_pages_holds_few_trials_that_wait(join, pages, claimed):
    one = join()
    given_out = one.ordinals(20, pages=pages)
    given_out.begin([])
    assert given_out.next(sampler_of)[1] == 0
    assert len(one.mirror.running) == claimed
    # All of them are this process's: nobody else gets them, and they go to others where it leaves.
    assert ordinals(taken(given_out)) == list(range(1, 20))
    one.crew.close()
    other = join().ordinals(20)
    other.begin([])
    assert sorted(ordinals(taken(other))) == list(range(20))
