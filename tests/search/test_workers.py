"""Several processes work on one study: whatever becomes of one of them, every trial is told once and the study ends."""

from __future__ import annotations

import math
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
import pytest
import sqlalchemy
from conftest import build_store
from killed_study import made_searches
from made_worker import STUDY, Worker, assert_sound, trials_of, wait_until
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from postgres import Server, running_server
from sqlalchemy import NullPool
from sqlalchemy.exc import DBAPIError

from search import open_study, run_study
from search.record import outages
from search.record.results import FinalistRecord
from search.record.storage import join_record, load_study, open_storage
from search.training import snapshot
from search.training.banks import Banks

TRIALS = 12
Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        made = RDBStorage(server.new_database("made"), engine_kwargs={"poolclass": NullPool})  # its tables take seconds
        made.remove_session()
        yield server


@pytest.fixture
def url(server, request) -> str:
    """A database for each test."""
    return server.new_database(f"t{abs(hash(request.node.nodeid))}", template="made")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return build_store(tmp_path_factory.mktemp("crew") / "store.h5", rows=96)


@pytest.fixture
def options(tmp_path, store, url) -> dict[str, Any]:
    (tmp_path / "study.toml").write_text(STUDY)
    told = {"features": str(store), "study": tmp_path / "study.toml", "out": tmp_path / "study", "storage": url}
    told |= {"trials": TRIALS, "epochs": 8, "finalists": 0, "folds": 0}
    return told | {"join": True, "grace": 4, "snapshot_every": 0}


@pytest.fixture
def start(tmp_path, options) -> Iterator[Start]:
    """Starts a worker; those that still run in the end are ended."""
    begun: list[Worker] = []

    def starting(**more: Any) -> Worker:
        begun.append(Worker(tmp_path / f"worker-{len(begun)}.log", **options | more))
        return begun[-1]

    yield starting
    for worker in begun:
        worker.end()


def told(url: str) -> int:
    return sum(trial.state.is_finished() for trial in trials_of(url))


def reported(url: str) -> int:
    return sum(len(trial.intermediate_values) for trial in trials_of(url))


def test_those_who_start_in_the_same_instant_share_the_trials(server, start, options, tmp_path):
    url = server.new_database("empty")  # not even the tables are there
    workers = [start(storage=url, out=tmp_path / name, pause=0.3, crew=2) for name in ("one", "two")]  # no common disk
    assert [worker.wait() for worker in workers] == [0, 0], workers[0].said + workers[1].said
    trials = assert_sound(url, TRIALS)
    by = [trial.user_attrs["worker"] for trial in trials]
    assert len(set(by)) == 2
    ended = [name for name in ("one", "two") if (tmp_path / name / "summary.json").exists()]
    assert len(ended) == 1
    assert open_study(tmp_path / ended[0]).summary.completed == TRIALS
    # A trial's result follows from its ordinal and its parameters; and from the batches, so from when it began.
    with made_searches():
        alone = run_study(**options | {"storage": None, "join": False, "out": tmp_path / "alone", "progress": False})
    compared = 0
    for mine, theirs in zip(trials, alone.record.trials, strict=True):
        assert mine.user_attrs["spec"] == theirs.user_attrs["spec"]
        if mine.user_attrs["first_epoch"] == theirs.user_attrs["first_epoch"]:
            compared += 1
            assert mine.intermediate_values == theirs.intermediate_values
            assert mine.value == theirs.value
    assert compared >= 4


def test_one_alone_finds_what_a_search_without_the_others_finds(start, options, url, tmp_path):
    worker = start(finalists=2, repeats=2)
    assert worker.wait() == 0, worker.said
    found = open_study(tmp_path / "study")
    with made_searches():
        alone = run_study(
            **options
            | {"storage": None, "join": False, "out": tmp_path / "alone", "finalists": 2, "repeats": 2}
            | {"progress": False}
        )
    for mine, theirs in zip(found.record.trials, alone.record.trials, strict=True):
        assert mine.user_attrs["spec"] == theirs.user_attrs["spec"]
        assert (mine.intermediate_values, mine.value) == (theirs.intermediate_values, theirs.value)
    assert [one.values for one in found.record.finalists] == [one.values for one in alone.record.finalists]
    assert found.summary.refit == alone.summary.refit


@pytest.fixture
def searched(start, options, url, tmp_path) -> dict[str, Any]:
    """Options of a study of which nothing but what comes after the search is left; workers share no disk."""
    worker = start(out=tmp_path / "before")
    assert worker.wait() == 0, worker.said
    storage = RDBStorage(url, engine_kwargs={"poolclass": NullPool})
    storage.set_study_user_attr(storage.get_study_id_from_name("crew"), "ended", None)
    storage.remove_session()
    return {"finalists": 3, "repeats": 4}


def repeats_of(url: str) -> list[FrozenTrial]:
    there = (study.study_name for study in open_storage(Path(), url).get_all_studies())
    found = [name for name in there if name.startswith("crew-finalists-")]
    return load_study(Path(), found[0], url).trials if found else []


def finalists_alone(options: dict[str, Any], searched: dict[str, Any], tmp_path: Path) -> list[FinalistRecord]:
    told = options | searched | {"storage": None, "join": False, "out": tmp_path / "alone", "progress": False}
    # Sums are rounded otherwise in a smaller bank, which there is only where one process works alone.
    with made_searches(), patch("search.training.pool.A_SMALLER_BANK", math.inf):
        return list(run_study(**told).record.finalists)


@pytest.mark.slow
def test_idle_workers_take_their_shares_of_the_repeats(start, options, url, tmp_path, searched):
    workers = [start(pause=0.3, crew=2, out=tmp_path / name, **searched) for name in ("one", "two")]
    assert [worker.wait() for worker in workers] == [0, 0], workers[0].said + workers[1].said
    (ended,) = (name for name in ("one", "two") if (tmp_path / name / "summary.json").exists())
    told = repeats_of(url)
    by = Counter(trial.user_attrs["worker"] for trial in told)
    assert len(by) == 2, by
    assert sorted(trial.user_attrs["ordinal"] for trial in told) == list(range(len(told)))
    mine = {one.trial: one for one in open_study(tmp_path / ended).record.finalists}
    theirs = {one.trial: one for one in finalists_alone(options, searched, tmp_path)}
    assert mine.keys() == theirs.keys()
    assert mine == theirs  # to the same bits


@pytest.mark.slow
def test_repeats_of_a_worker_that_is_killed_are_taken_over(start, options, url, tmp_path, searched):
    workers = {name: start(pause=0.5, crew=2, out=tmp_path / name, **searched) for name in ("one", "two")}
    wait_until(lambda: len({trial.user_attrs.get("worker") for trial in repeats_of(url)} - {None}) == 2)
    wait_until(lambda: sum(len(trial.intermediate_values) for trial in repeats_of(url)) > 12)
    first = min(workers, key=lambda name: not (tmp_path / name / "finalists" / "study.json").exists())
    workers[first].signal(signal.SIGKILL)
    workers[first].wait()
    (other,) = workers.keys() - {first}
    assert workers[other].wait() == 0, workers[other].said
    mine = {one.trial: one.repeats for one in open_study(tmp_path / other).record.finalists}
    assert mine == {one.trial: one.repeats for one in finalists_alone(options, searched, tmp_path)}


def kill_at_random(start: Start, url: str, times: int, seed: int) -> None:
    chance = random.Random(seed)
    workers = [start(pause=0.3), start(pause=0.3)]
    killed = 0
    for _ in range(times):
        time.sleep(chance.uniform(0.3, 2))
        if not any(worker.runs for worker in workers):
            break
        place = chance.randrange(2)
        workers[place].signal(signal.SIGKILL)
        killed += workers[place].wait() == -signal.SIGKILL
        workers[place] = start(pause=0.3)
    assert [worker.wait() for worker in workers] == [0, 0], "".join(worker.said for worker in workers)
    assert_sound(url, TRIALS)
    assert killed > 1


def test_workers_that_are_killed_lose_no_trial(start, url):
    kill_at_random(start, url, 3, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_workers_that_are_killed_five_times_lose_no_trial(start, url, seed):
    kill_at_random(start, url, 5, seed=seed + 1)


def assert_as_alone(options: dict[str, Any], trials: list[FrozenTrial], folder: Path) -> None:
    """As if nothing had been: with the same batches, to the same bits."""
    with made_searches():
        alone = run_study(**options | {"storage": None, "join": False, "out": folder, "progress": False})
    for mine, theirs in zip(trials, alone.record.trials, strict=True):
        assert mine.user_attrs["spec"] == theirs.user_attrs["spec"]
        assert mine.user_attrs["first_epoch"] == theirs.user_attrs["first_epoch"]
        assert mine.intermediate_values == theirs.intermediate_values


def test_what_a_killed_worker_had_trained_is_gone_on_with(start, options, url, tmp_path):
    options["epochs"] = 24  # enough for it to be killed within, however slowly this machine sees that it may be
    first = start(pause=0.3)
    wait_until(lambda: any(len(trial.intermediate_values) >= 5 for trial in trials_of(url)))
    first.signal(signal.SIGKILL)
    first.wait()
    second = start()
    assert second.wait() == 0, second.said
    trials = assert_sound(url, TRIALS)
    again = [trial for trial in trials if "rerun_of" in trial.user_attrs]
    assert again
    assert_as_alone(options, trials, tmp_path / "alone")
    # What had been reported then was not trained anew, but for what came after the last snapshot.
    found = load_study(tmp_path, "crew", url).trials
    took = [one.user_attrs["rerun_of"] for one in again]
    assert sum(len(found[number].intermediate_values) for number in took) >= 5
    trained = sum(bool(found[number].intermediate_values) for number in took)
    assert f"{trained} trials gone on with, begun by another process" in second.said


def test_what_begins_anew_where_no_snapshot_is_left_gets_the_batches_of_its_first_time(options, url, tmp_path):
    real, there = Banks.train, 8  # the bank has no room for the others at once

    def train(banks: Banks, epoch: int, trials: Any) -> Any:
        if epoch == options["epochs"] + 2:
            raise SystemExit
        return real(banks, epoch, trials)

    with made_searches():
        with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit):
            patched.setattr(Banks, "train", train)
            run_study(**options | {"progress": False})
        assert sum(trial.state == TrialState.COMPLETE for trial in trials_of(url)) == there
        (left,) = tmp_path.glob(f"study/**/{snapshot.SNAPSHOT_FILE}")
        left.unlink()
        run_study(**options | {"progress": False})
    trials = assert_sound(url, TRIALS)
    again = [trial for trial in trials if "rerun_of" in trial.user_attrs]
    assert {trial.user_attrs["first_epoch"] for trial in again} == {options["epochs"]}
    assert len(again) == TRIALS - there
    assert_as_alone(options, trials, tmp_path / "alone")


def test_a_worker_that_is_asked_to_leave_gives_its_trials_back(start, url):
    workers = [start(pause=0.5, crew=2), start(pause=0.5, crew=2)]  # slow enough to be at it when it is asked
    wait_until(lambda: len({trial.user_attrs.get("worker") for trial in trials_of(url)} - {None}) == 2)
    wait_until(lambda: reported(url) > 8)
    workers[0].signal(signal.SIGINT)
    assert workers[0].wait() == 130, workers[0].said
    assert workers[1].wait() == 0, workers[1].said
    assert_sound(url, TRIALS)


def test_late_reports_of_a_worker_that_was_cut_off_are_refused(start, url):
    asleep = start(pause=0.2)
    wait_until(lambda: reported(url) > 4)
    asleep.signal(signal.SIGSTOP)
    held = {trial.number for trial in trials_of(url) if trial.state == TrialState.RUNNING}
    assert held
    other = start()
    wait_until(lambda: told(url) >= TRIALS)
    before = {number: trials_of(url)[number].intermediate_values for number in held}
    asleep.signal(signal.SIGCONT)
    assert other.wait() == 0, other.said
    assert asleep.wait() == 0, asleep.said
    trials = assert_sound(url, TRIALS)
    assert not held & {trial.number for trial in trials}
    assert {number: trials_of(url)[number].intermediate_values for number in held} == before


def test_who_is_stopped_within_a_transaction_keeps_nobody_waiting(url, monkeypatch):
    monkeypatch.setattr(outages, "IDLE_S", 0.5)
    lock, engine = sqlalchemy.text("LOCK TABLE trials"), sqlalchemy.create_engine(url)
    outages.set_up_sessions(engine)
    with engine.connect() as stopped, engine.connect() as other:
        stopped.execute(lock)
        other.execute(sqlalchemy.text("SET lock_timeout = '60s'"))
        other.execute(lock)
        other.rollback()
        with pytest.raises(DBAPIError) as caught:
            stopped.execute(lock)
        assert outages.passes(caught.value)
    engine.dispose()


def test_connections_to_a_study_are_let_go(url):
    seen = set()

    def look(connection: Any, *_: Any) -> None:
        asked = connection.connection.dbapi_connection.execute("SHOW idle_in_transaction_session_timeout")
        seen.add(asked.fetchone()[0])

    RDBStorage(url, engine_kwargs={"poolclass": NullPool}).create_new_study([StudyDirection.MAXIMIZE], "s")
    storage = open_storage(Path(), url)
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", look)
    try:
        assert [study.study_name for study in storage.get_all_studies()] == ["s"]
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", look)
    assert seen == {f"{outages.IDLE_S:.0f}s"}


@pytest.mark.parametrize("zone", ["<-05>+05", "Asia/Tokyo"])  # the first one's name is none that Python knows
def test_signs_of_life_do_not_depend_on_anybodys_time_zone(url, monkeypatch, zone):
    engine = sqlalchemy.create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text(f"ALTER DATABASE {engine.url.database} SET timezone TO '{zone}'"))
    one = join_record(url, "crew", direction="maximize", grace=60)
    monkeypatch.setenv("PGTZ", "America/New_York")
    two = join_record(url, "crew", direction="maximize", grace=60)
    try:
        mirrors = [opened.study._storage for opened in (one, two)]
        for mirror in mirrors:
            mirror.claim(9, "somebody")
        silent_for = [seconds for mirror in mirrors for seconds in mirror.tables.silent_for().values()]
        assert len(silent_for) == 4
        assert all(abs(seconds) < 60 for seconds in silent_for)
    finally:
        one.close()
        two.close()


def outage(server: Server, start: Start, url: str, seconds: float) -> None:
    workers = [start(pause=0.1, crew=2), start(pause=0.1, crew=2)]
    wait_until(lambda: reported(url) > 4)
    server.stop()
    time.sleep(seconds)
    server.start()
    assert [worker.wait() for worker in workers] == [0, 0], "".join(worker.said for worker in workers)
    assert_sound(url, TRIALS)
    assert "cannot be reached; it is tried again" in workers[0].said + workers[1].said


def test_a_server_that_is_away_for_a_while_costs_nothing(server, start, url):
    outage(server, start, url, 6)


@pytest.mark.slow
def test_a_server_that_is_away_for_a_minute_costs_nothing(server, start, url):
    outage(server, start, url, 60)


def test_who_is_stopped_while_the_server_is_away_stops(server, start, url):
    worker = start(pause=0.1)
    wait_until(lambda: reported(url) > 4)
    server.stop()
    try:
        worker.signal(signal.SIGTERM)
        assert worker.wait(60) == 143, worker.said
    finally:
        server.start()
    assert "Traceback" not in worker.said
    assert "note: what was noted last is lost" in worker.said
    again = start()
    assert again.wait() == 0, again.said
    assert_sound(url, TRIALS)


def test_a_study_that_is_deleted_under_its_search_ends_it_in_a_line(start, tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    worker = start(storage=url, pause=0.1)
    wait_until(lambda: reported(url) > 4)
    optuna.delete_study(study_name="crew", storage=url)
    assert worker.wait(60) == 1
    assert "error: " in worker.said
    assert "not in the database any more" in worker.said
    assert "Traceback" not in worker.said


def test_a_full_disk_ends_one_worker_and_not_the_study(start, url, tmp_path):
    full = start(pause=0.1, crew=2, out=tmp_path / "full", limit=20_000)
    other = start(pause=0.1, crew=2)
    assert full.wait() == 1
    assert "no room" in full.said or "could be written" in full.said or "full" in full.said, full.said
    assert other.wait() == 0, other.said
    assert_sound(url, TRIALS)


def test_what_another_process_has_ended_is_not_done_again(start, url, tmp_path):
    assert start().wait() == 0
    written = (tmp_path / "study" / "summary.json").stat().st_mtime_ns
    again = start()
    assert again.wait() == 0, again.said
    assert (tmp_path / "study" / "summary.json").stat().st_mtime_ns == written
    more = start(trials=TRIALS + 3)
    assert more.wait() == 0, more.said
    assert_sound(url, TRIALS + 3)
    assert open_study(tmp_path / "study").summary.completed == TRIALS + 3
    shutil.rmtree(tmp_path / "study")
    again = start(trials=TRIALS + 3)
    assert again.wait() == 0, again.said
    assert open_study(tmp_path / "study").summary.completed == TRIALS + 3, "where it is lost it is"


def test_another_store_and_another_study_are_refused_by_name(start, tmp_path):
    assert start().wait() == 0
    other = build_store(tmp_path / "other.h5", rows=93)
    refused = [start(features=str(other), out=tmp_path / "elsewhere"), start(epochs=9, out=tmp_path / "elsewhere")]
    assert [worker.wait() for worker in refused] == [2, 2]
    assert re.search(r"other\.h5.*expected .*this study was made with", refused[0].said), refused[0].said
    assert re.search("epochs: expected 8, found 9", refused[1].said), refused[1].said


@pytest.mark.slow  # what is refused is tested by itself in tests/search/record/test_crew.py
def test_a_search_alone_and_one_with_others_exclude_each_other(start, url, tmp_path):
    worker = start(pause=2)
    wait_until(lambda: reported(url) > 0)
    refused = start(join=False, resume=True)
    assert refused.wait() == 1
    assert re.search(r"process \d+ on .* works on it, one of 1; join them with --join", refused.said), refused.said
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 143
    alone = start(pause=1, join=False, resume=True)
    wait_until(lambda: "owner" in load_study(tmp_path, "crew", url).user_attrs)
    refused = start()
    assert refused.wait() == 1
    assert re.search(r"process \d+ on .* searches it alone; start that one with --join", refused.said), refused.said
    assert alone.wait() == 0, alone.said
    assert_sound(url, TRIALS)
