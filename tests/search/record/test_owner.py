"""A study in a database has one search at a time: who is alive is named, who is dead is followed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import psutil
import pytest
import sqlalchemy
from made_database import study_database
from sqlalchemy import text

from features.runtime.errors import BottleneckError
from search.record import owner as module
from search.record.owner import ATTRIBUTE, Owner, Ownership
from search.record.storage import load_study, open_record
from search.setup.optuna_internals import tables

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def url(tmp_path) -> str:
    return study_database(tmp_path)


@pytest.fixture
def study(url) -> optuna.Study:
    return optuna.load_study(storage=url, study_name="s")


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(module, "WATCH_S", 0.05)


def noted(study: optuna.Study) -> Owner | None:
    return Owner.read(study.user_attrs.get(ATTRIBUTE))


def put(study: optuna.Study, **changes) -> Owner:
    """Notes another owner: this process, changed."""
    other = replace(Owner.of_this_process(), **changes)
    study.set_user_attr(ATTRIBUTE, asdict(other))
    return other


def resume(tmp_path, url):
    return open_record(tmp_path, "s", url, direction="maximize", resume=True)


def test_an_owner_is_noted_as_long_as_the_study_is_open(study, url, tmp_path):
    opened = resume(tmp_path, url)
    mine = noted(study)
    assert (mine.process, mine.is_alive) == (os.getpid(), True)
    with pytest.raises(BottleneckError, match=f"process {os.getpid()} on .* searches it.*end that one first"):
        resume(tmp_path, url)
    opened.flush()
    opened.close()
    opened.close()
    assert noted(study) is None
    resume(tmp_path, url).close()


ELSEWHERE = {"host": "elsewhere", "machine": "another"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (ELSEWHERE, r"study 's': process \d+ on elsewhere searches it.*last sign of life is \d s old"),
        ({"machine": "another"}, "searches it"),  # two containers of one name, or two machines
        ({}, "end that one first"),  # another process here, and alive
        (ELSEWHERE | {"beat": time.time() + 1e6}, "searches it"),  # its clock is ahead
    ],
)
def test_a_living_owner_is_refused_by_name_and_its_trials_are_left_alone(study, url, tmp_path, changes, said):
    running = study.ask()
    other = put(study, **changes)
    with pytest.raises(BottleneckError, match=said) as refused:
        resume(tmp_path, url)
    assert "\n" not in str(refused.value)
    assert noted(study) == other
    assert study.trials[running.number].state == optuna.trial.TrialState.RUNNING


@pytest.mark.parametrize(
    "changes",
    [
        {"process": 2**22 + 5},  # no such process: Linux counts to 2**22
        {"started": 1.0},  # another process has its number by now
        ELSEWHERE | {"beat": time.time() - 3600},
    ],
)
def test_a_dead_owner_is_followed_and_that_is_said(study, url, tmp_path, changes, capsys):
    other = put(study, **changes)
    opened = resume(tmp_path, url)
    assert noted(study).process == os.getpid()
    assert f"going on in the place of {other}, which has ended" in capsys.readouterr().err
    opened.close()


@pytest.mark.parametrize("has_proc", [True, False])
def test_a_process_that_nobody_has_asked_for_its_end_has_ended(monkeypatch, has_proc):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        if not has_proc:  # as on a system without it; psutil reads it in a way of its own
            monkeypatch.setattr(module.Path, "read_bytes", lambda _: (_ for _ in ()).throw(FileNotFoundError))
        there = replace(Owner.of_this_process(), process=process.pid, started=module._started(process.pid))
        assert there.is_alive
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
        assert not there.is_alive


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no count of its own")
def test_a_clock_that_is_set_right_ends_no_owner(study, url, tmp_path, monkeypatch):
    other = put(study)
    began = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: began(process) + 3600)
    with pytest.raises(BottleneckError, match="end that one first"):
        resume(tmp_path, url)
    assert noted(study) == other


def test_an_owner_whose_clock_is_wrong_is_seen_to_be_alive(study, url, tmp_path, monkeypatch):
    other = put(study, **ELSEWHERE, beat=1.0)
    signs = []

    def meanwhile(line: str) -> None:
        signs.append(line)
        put(study, **(asdict(other) | {"beat": 11.0}))

    monkeypatch.setattr(module, "say", meanwhile)
    with pytest.raises(BottleneckError, match="on elsewhere searches it"):
        resume(tmp_path, url)
    assert len(signs) == 1
    assert f"whether {other} is still at it" in signs[0]


@pytest.mark.parametrize("rubbish", ["text", 5, None, {}, {"host": 5}, [1]])
def test_what_is_no_owner_is_in_nobodys_way(study, url, tmp_path, rubbish):
    study.set_user_attr(ATTRIBUTE, rubbish)
    resume(tmp_path, url).close()


def test_signs_of_life_change_nothing_but_the_time_and_who_is_overtaken_is_told(study, url):
    ownership = Ownership(url, study._study_id, "s")
    before = noted(study)
    ownership.beat()
    after = noted(study)
    assert after.beat > before.beat
    assert after == replace(before, beat=after.beat)
    ownership.check()
    put(study, **ELSEWHERE)
    ownership.beat()
    with pytest.raises(BottleneckError, match=r"taken over by process \d+ on elsewhere"):
        ownership.check()
    ownership.close()
    assert noted(study).host == "elsewhere"  # who has it now keeps it


def test_a_sign_whose_answer_was_lost_is_not_the_last_one(study, url):
    ownership = Ownership(url, study._study_id, "s")
    before = ownership._noted
    ownership.beat()
    ownership._noted = before  # as where the connection ended before it was heard that the sign had got through
    ownership.tell(trials=12)
    assert noted(study).trials == 12
    ownership.beat()
    ownership.check()
    ownership.close()
    assert noted(study) is None


def test_signs_come_by_themselves(study, url, monkeypatch):
    monkeypatch.setattr(module, "BEAT_S", 0.02)
    ownership = Ownership(url, study._study_id, "s")
    first, until = noted(study).beat, time.monotonic() + 5
    while noted(study).beat == first and time.monotonic() < until:
        time.sleep(0.01)
    assert noted(study).beat > first
    ownership.close()


def test_an_error_beside_the_signs_is_said_once_and_ends_none_of_them(study, url, monkeypatch):
    said, beats = [], []
    errors = iter([KeyError("a bug"), KeyError("a bug"), KeyError(tables.NOT_FOUND_MSG)])

    def also() -> None:
        beats.append(noted(study).beat)
        raise next(errors, ValueError("another"))

    monkeypatch.setattr(module, "say", said.append)
    ownership = Ownership(url, study._study_id, "s", every=0.02, also=also)
    until = time.monotonic() + 20
    while len(beats) < 6 and time.monotonic() < until:
        time.sleep(0.01)
    ownership.close()
    assert len(set(beats)) >= 6
    assert len(said) == 2
    assert "study 's': KeyError: 'a bug', in the midst of a sign of life" in said[0]
    assert "study 's': ValueError: another, in" in said[1]


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_that_start_at_once_one_gets_it(study, url, dead):
    if dead:
        put(study, started=1.0)
    barrier, got, refused = threading.Barrier(6), [], []

    def start():
        barrier.wait()
        try:
            got.append(Ownership(url, study._study_id, "s"))
        except BottleneckError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)
    got[0].check()
    got[0].close()


def test_optunas_tables_are_as_they_are_taken_to_be(study, url):
    """What is used of Optuna's own tables: an upgrade that changes them fails here."""
    study.set_user_attr("x", [1, {"y": 2}])
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        row = connection.execute(text("SELECT study_id, key, value_json FROM study_user_attributes")).one()
    unique = sqlalchemy.inspect(engine).get_unique_constraints("study_user_attributes")
    engine.dispose()
    assert (row[0], row[1], json.loads(row[2])) == (study._study_id, "x", [1, {"y": 2}])
    assert ["study_id", "key"] in [constraint["column_names"] for constraint in unique]


def test_a_journal_has_no_owner_in_it(tmp_path):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    opened.close()
    assert load_study(tmp_path, "s", None).user_attrs == {}
