"""Processes that work on one study: who is there, what they agree on, who runs the end."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from made_crew import DEAD, ELSEWHERE, Process
from made_mirrors import Clock, claim
from made_study import make_config
from optuna.samplers import RandomSampler

from features.runtime.errors import BottleneckError, InputError
from search.record import crew as module
from search.record import owner
from search.record.crew import (
    FINISHER,
    REPEATS,
    WORKER_KEY,
    beat_every,
    ended_for,
    refuse_beside_crew,
    workers_of,
)
from search.record.noted_config import CONFIG, CONFIG_ALONE, begun_config, note_alone, noted_config
from search.record.owner import ATTRIBUTE, Ownership
from search.record.summary import SUMMARY_FILE
from search.trials.samplers import make_sampler

pytestmark = pytest.mark.usefixtures("patience")
BOTH = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
"""For tests of what two do in the database at once: the others are the same in every one."""


# --- who is there -----------------------------------------------------------------------------------------------------


def test_each_has_a_name_of_its_own_that_is_a_folders_and_stands_in_the_study_until_it_leaves(crews, join):
    one, two = join(), join()
    assert one.name != two.name
    for process in (one, two):
        assert process.name.startswith(socket.gethostname()[:4])
        assert "/" not in process.name
        assert workers_of(crews.attributes)[process.name].is_alive
    assert workers_of(crews.attributes).keys() == {one.name, two.name}
    two.crew.close()
    two.crew.close()
    assert workers_of(crews.attributes).keys() == {one.name}


@BOTH
def test_those_are_counted_that_are_alive_and_this_one(crews, join):
    one = join()
    assert one.crew.living() == 1
    two = join()
    assert (one.crew.living(), two.crew.living()) == (2, 2)
    crews.put(WORKER_KEY + "elsewhere", **ELSEWHERE)
    assert one.crew.living() == 3
    crews.put(WORKER_KEY + "dead", **DEAD)
    crews.put(WORKER_KEY + "silent", **ELSEWHERE, beat=time.time() - 3600)
    crews.storage.set_study_user_attr(crews.study, WORKER_KEY + "rubbish", 5)
    assert one.crew.living() == 3
    two.crew.close()
    assert one.crew.living() == 2


def test_who_else_is_there_is_believed_for_a_moment(join, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_LOOK_S", 2.0)
    one = join()
    assert one.crew.living() == 1
    two = join()
    clock.now += 1.9
    assert one.crew.living() == 1
    assert one.crew.living(anew=True) == 2
    assert one.crew.others() == [two.crew.name]
    join()
    assert one.crew.living() == 2
    clock.now += 1.9
    clock.now += 0.2
    assert one.crew.living() == 3


def test_signs_of_life_come_several_times_in_the_grace():
    assert beat_every(60) == 10
    assert beat_every(0.1) == 0.2


def test_who_searches_alone_is_not_joined_and_nothing_is_left_of_who_tried(crews, join, url):
    alone = Ownership(url, crews.study, crews.name)
    with pytest.raises(BottleneckError, match=r"process \d+ on .* searches it alone; start that one with --join"):
        join()
    assert not workers_of(crews.attributes)
    alone.close()
    crews.put(ATTRIBUTE, **DEAD)
    assert join().crew.living() == 1


def test_a_study_that_others_work_on_is_not_searched_alone(crews, join, capsys):
    study = crews.study_of(crews.join())
    refuse_beside_crew(study, "here")
    one, _ = join(), join()
    with pytest.raises(BottleneckError, match=r"here: process \d+ on .* works on it, one of 2; join them with --join"):
        refuse_beside_crew(study, "here")
    one.crew.close()
    with pytest.raises(BottleneckError, match="one of 1"):
        refuse_beside_crew(study, "here")
    assert capsys.readouterr().err == ""


def test_after_those_who_have_died_a_study_is_searched_alone_and_that_is_said(crews, capsys):
    crews.put(WORKER_KEY + "dead", **DEAD)
    refuse_beside_crew(crews.study_of(crews.join()), "here")
    assert "note: here: it was worked on with --join; going on alone" in capsys.readouterr().err


@pytest.mark.parametrize("attribute", [ATTRIBUTE, f"{WORKER_KEY}other"])
@pytest.mark.parametrize("lives", [True, False])
def test_who_is_elsewhere_and_whose_clock_is_behind_is_watched(crews, join, monkeypatch, capsys, attribute, lives):
    other = crews.put(attribute, **ELSEWHERE, beat=time.time() - 300, grace=60)
    study, slept = crews.study_of(crews.join()), []

    def sleep(seconds):
        slept.append(seconds)
        crews.put(attribute, **asdict(other) | {"beat": other.beat + 10 * lives})

    monkeypatch.setattr(owner, "time", SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=sleep))
    attempt = join if attribute == ATTRIBUTE else partial(refuse_beside_crew, study, "here")
    if lives:
        with pytest.raises(BottleneckError, match=r"on elsewhere (searches it alone|works on it)"):
            attempt()
    else:
        attempt()
    assert slept == [15]
    assert f"looking for 15 s whether {other} is still at it" in capsys.readouterr().err


def test_who_is_elsewhere_and_whose_clock_is_wrong_is_counted_while_its_signs_change(crews, join, monkeypatch):
    passed, one = 0.0, join()
    monkeypatch.setattr(owner, "time", SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + passed))
    behind, ahead = (time.time() + seconds for seconds in (-300, 3600))
    there = [crews.put(WORKER_KEY + name, **ELSEWHERE, beat=beat) for name, beat in (("a", behind), ("b", ahead))]
    assert one.crew.others() == ["b"]
    passed = 50.0
    for name, other in zip("ab", there, strict=True):
        crews.put(WORKER_KEY + name, **asdict(other) | {"beat": other.beat + 10})
    assert one.crew.others() == ["a", "b"]
    passed += 50
    assert one.crew.others() == ["a", "b"]
    passed += 20
    assert one.crew.others() == [], "a sign from the future is none of life"


# --- what they agree on -----------------------------------------------------------------------------------------------


@BOTH
def test_what_the_first_has_decided_by_its_machine_is_taken_by_all(crews, join):
    assert noted_config(crews.attributes, "here") is None
    first = join().crew.agree_on(make_config(pages=32, dtype="float32"))
    assert (first.pages, first.dtype) == (32, "float32")
    second = join().crew.agree_on(make_config(pages=64, dtype="bfloat16"))
    assert second == first == noted_config(crews.attributes, "here")


def test_another_study_is_refused_and_the_difference_is_named(crews, join):
    join().crew.agree_on(make_config())
    before = crews.attributes[CONFIG]
    with pytest.raises(InputError, match=rf"study '{crews.name}': epochs: expected 8, found 9"):
        join().crew.agree_on(make_config(epochs=9))
    assert crews.attributes[CONFIG] == before


def test_each_may_name_the_database_as_it_reaches_it(crews, join):
    first = make_config(storage="postgresql://one:hunter2@server/studies")
    join().crew.agree_on(first)
    second = make_config(storage="postgresql://10.0.0.7:5432/studies")
    for _ in range(2):
        assert join().crew.agree_on(second).storage == second.storage


def test_another_number_of_trials_is_refused_while_others_live_and_who_is_alone_goes_on_with_it(crews, join):
    one, two = join(), join()
    one.crew.agree_on(make_config(trials=12))
    with pytest.raises(InputError, match=r"trials: expected 12, found 15.*whoever is alone may go on with more"):
        two.crew.agree_on(make_config(trials=15))
    before = crews.attributes[CONFIG]
    assert two.crew.agree_on(make_config(trials=12, repeats=9)).repeats == 9
    assert crews.attributes[CONFIG] == before, "what the others do is not changed under them"
    one.crew.close()
    crews.put(WORKER_KEY + "dead", **DEAD)
    assert two.crew.agree_on(make_config(trials=15, repeats=7, pages=1)).trials == 15
    noted = noted_config(crews.attributes, "here")
    assert noted is not None
    assert (noted.trials, noted.repeats, noted.pages) == (15, 7, 32)
    assert join().crew.agree_on(make_config(trials=15)).trials == 15


@BOTH
def test_those_who_begin_together_go_on_with_more_trials_together(crews, join):
    first = join()
    first.crew.agree_on(make_config(trials=12))
    first.crew.close()
    one, two, other = join(), join(), join()
    for process in (one, two):
        assert process.crew.agree_on(make_config(trials=15)).trials == 15
    with pytest.raises(InputError, match="trials: expected 15, found 12"):
        other.crew.agree_on(make_config(trials=12))
    assert noted_config(crews.attributes, "here").trials == 15
    one.crew._signs.beat()
    assert workers_of(crews.attributes)[one.name].trials == 15


def test_fewer_trials_than_have_been_run_are_refused(crews, join):
    one = join()
    one.crew.agree_on(make_config(trials=12))
    ordinals = one.ordinals(12)
    for _ in range(3):
        trial, _ = ordinals.next(lambda _: RandomSampler(seed=0))
        one.complete(trial)
    before = crews.attributes[CONFIG]
    with pytest.raises(InputError, match=r"trials: expected at least 3, found 2; .*without --trials"):
        one.crew.agree_on(make_config(trials=2))
    assert crews.attributes[CONFIG] == before
    assert one.crew.agree_on(make_config(trials=3)).trials == 3


def test_a_study_that_was_begun_alone_is_joined_with_its_options_and_what_its_machine_decided(crews, join):
    note_alone(crews.study_of(crews.join()), make_config(trials=12, pages=32))
    assert noted_config(crews.attributes, "here") is None
    with pytest.raises(InputError, match=rf"study '{crews.name}': epochs: expected 8, found 9"):
        join().crew.agree_on(make_config(epochs=9))
    assert CONFIG not in crews.attributes, "nobody has joined"
    assert join().crew.agree_on(make_config(trials=15, pages=64)).pages == 32
    noted = noted_config(crews.attributes, "here")
    assert noted is not None
    assert (noted.trials, noted.pages) == (15, 32)


def test_who_goes_on_alone_with_more_trials_has_noted_them_for_who_joins_next(crews, join):
    first = join()
    first.crew.agree_on(make_config(trials=12))
    first.crew.close()
    note_alone(crews.study_of(crews.join()), make_config(trials=20))
    assert CONFIG_ALONE not in crews.attributes
    assert begun_config(crews.attributes, "here").trials == 20


def test_a_study_with_trials_that_says_nothing_of_its_options_is_joined_where_it_was_begun(crews, join):
    claim(crews.join(), "alone")
    with pytest.raises(InputError, match=r"with its options noted, found none; join it with the --out that it was"):
        join().crew.agree_on(make_config())
    assert CONFIG not in crews.attributes
    assert join().crew.agree_on(make_config(), is_recorded=True) == make_config()


def test_a_config_that_is_damaged_is_named(crews, join):
    crews.storage.set_study_user_attr(crews.study, CONFIG, {"schema": 1})
    with pytest.raises(InputError, match=f"study '{crews.name}'"):
        join().crew.agree_on(make_config())


# --- the end ----------------------------------------------------------------------------------------------------------


@BOTH
def test_a_quasi_random_sequence_is_drawn_together_as_by_one_alone(crews):
    def drawn(processes: list[Process], most: int) -> dict[int, float]:
        points = {}
        all_ordinals = [process.ordinals(most) for process in processes]
        for turn in range(most):
            process, ordinals = processes[turn % len(processes)], all_ordinals[turn % len(processes)]
            found = ordinals.next(lambda ordinal: make_sampler("qmc", seed=0, ordinal=ordinal, epochs=1))
            assert found is not None
            trial, place = found
            points[place] = trial.suggest_float("x", 0, 1)
            process.complete(trial)
        return points

    together = drawn([crews.process(), crews.process()], 8)
    assert len(set(together.values())) == 8
    study = optuna.create_study()
    for place in range(8):
        study.sampler = make_sampler("qmc", seed=0, ordinal=place, epochs=1)
        trial = study.ask()
        assert trial.suggest_float("x", 0, 1) == together[place]
        study.tell(trial, 0.5)


def test_one_is_elected_until_it_leaves(crews, join):
    one, two = join(), join()
    assert [process.crew.elect() for process in (one, two, one, two)] == [True, False, True, False]
    one.crew.close()
    assert FINISHER not in crews.attributes
    assert two.crew.elect()


@BOTH
def test_where_the_elected_one_has_died_another_is(crews, join):
    crews.put(FINISHER, **DEAD)
    assert join().crew.elect()


def test_who_was_asleep_while_it_ran_the_end_and_was_replaced_is_told(crews, join):
    one = join()
    one.crew.check()
    one.crew.elect()
    one.crew.check()
    crews.put(FINISHER, **ELSEWHERE)
    one.crew._finishing.beat()
    with pytest.raises(BottleneckError, match=r"taken over by process \d+ on elsewhere, this process"):
        one.crew.check()


def test_what_comes_after_the_search_has_been_run_for_so_many_trials(crews, join):
    one, two = join(), join()
    assert not one.crew.has_ended(12)
    one.crew.end(12, Path("/there"))
    assert two.crew.has_ended(12)
    assert not two.crew.has_ended(15), "there are more by now"
    assert ended_for(crews.attributes, 12) == f"/there on {socket.gethostname()}"


def test_options_of_the_end_are_those_of_who_ran_it(crews, join, capsys):
    one, two = join(), join()
    mine = one.crew.agree_on(make_config(finalists=3, repeats=2))
    theirs = two.crew.agree_on(make_config(finalists=0))
    assert (theirs.finalists, two.crew.as_noted(theirs).finalists) == (0, 3)
    two.crew.runs_the_end(theirs)
    assert one.crew.as_noted(mine).finalists == 0
    two.crew.end(12, Path("/there"))
    for process in (one, two):
        process.crew.close()
    assert capsys.readouterr().err == ""
    assert join().crew.agree_on(make_config(finalists=3, repeats=2)) == theirs
    assert "has ended with no finalists; --resume without --join runs its end again" in capsys.readouterr().err
    assert noted_config(crews.attributes, "here") == theirs
    assert join().crew.agree_on(theirs) == theirs
    assert capsys.readouterr().err == ""


def test_an_end_whose_study_directory_was_removed_is_forgotten(crews, join, tmp_path, capsys):
    one = join()
    one.crew.forget_lost_end(tmp_path)
    (tmp_path / SUMMARY_FILE).touch()
    one.crew.end(12, tmp_path)
    one.crew.forget_lost_end(tmp_path / "another")
    one.crew.forget_lost_end(tmp_path)
    assert one.crew.has_ended(12)
    assert capsys.readouterr().err == ""
    (tmp_path / SUMMARY_FILE).unlink()
    one.crew.forget_lost_end(tmp_path / "another")
    assert one.crew.has_ended(12)
    one.crew.forget_lost_end(tmp_path)
    assert not one.crew.has_ended(12)
    one.crew.forget_lost_end(tmp_path)
    assert capsys.readouterr().err.count("which was removed since; what comes last is done again") == 1


def test_repeats_that_are_run_are_announced_to_all(crews, join):
    one, two = join(), join()
    assert two.crew.announced() is None
    one.crew.announce("the repeats")
    assert two.crew.announced() == "the repeats"
    crews.storage.set_study_user_attr(crews.study, REPEATS, 5)
    assert two.crew.announced() is None


def test_so_many_are_waited_for_but_not_longer_than_for_so_many_seconds(join, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    one, _ = join(), join()
    begun = clock.now
    one.crew.gather(2, 5.0)
    assert clock.now == begun
    one.crew.gather(3, 5.0)
    assert 5 <= clock.now - begun < 5.2
    real, joined = clock.sleep, []
    monkeypatch.setattr(clock, "sleep", lambda seconds: joined.append(join()) or real(seconds))
    one.crew.gather(3, 5.0)
    assert len(joined) == 1
