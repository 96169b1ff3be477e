"""A study by workers that a local Ray places: workers die, the driver is stopped, and the study ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import psutil
import pytest
from commands import invoke
from conftest import ROOT, build_store
from made_mirrors import away
from made_study import make_config
from made_worker import assert_sound, trials_of, wait_until
from optuna.trial import TrialState

from features.runtime.errors import BottleneckError, InputError
from search import open_study
from search.on_ray import run_study_on_ray
from search.record import outages
from search.record.noted_config import CONFIG
from search.record.storage import open_record
from search.setup.options import RunOptions
from search.setup.storage_url import VARIABLE
from search.workers import study_on_ray
from search.workers.study_on_ray import Placement, RefusedByWorkerError, sent_stores
from search.workers.study_program import ANSWERED
from search.workers.study_worker import StudyWorker

pytest.importorskip("ray", reason="ray is not installed")
STUDY = 'name = "crew"\n[space]\nconv_width = [16, 32]\nlearning_rate = { low = 1e-3, high = 1e-2, log = true }\n'
TRIALS = 8


class Driver:
    """``search.cluster run`` as a program."""

    def __init__(self, place: Path, store: Path, *, epochs: int, trials: int = TRIALS) -> None:
        (place / "study.toml").write_text(STUDY)
        self.folder, self.log = place / "study", place / f"{time.monotonic_ns()}.log"
        self.url = f"sqlite:///{self.folder / 'study.db'}"
        words = [sys.executable, "-m", "search.cluster", "run", "--address", "local", "--workers", "2"]
        words += ["--features", f"{store}", "--study", f"{place / 'study.toml'}", "--out", f"{self.folder}"]
        words += ["--trials", f"{trials}", "--epochs", f"{epochs}", "--folds", "0", "--finalists", "0"]
        words += ["--pruner", "none", "--snapshot-every", "0", "--backend", "jax", "--grace", "10"]
        with self.log.open("w") as file:
            self.process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)

    def wait(self) -> int:
        return self.process.wait(300)

    @property
    def said(self) -> str:
        logs = [path.read_text() for path in (self.folder / "workers").glob("*.log")]
        return "\n".join([self.log.read_text(), *logs])

    def workers(self) -> list[psutil.Process]:
        """The programs of this study that run."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "search.workers.study_program" in words and str(self.folder) in words:
                found.append(process)
        return found

    def reported(self) -> int:
        return sum(len(trial.intermediate_values) for trial in trials_of(self.url))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return build_store(tmp_path_factory.mktemp("cluster") / "store.h5", rows=96)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_the_study_ends(tmp_path, store):
    driver = Driver(tmp_path, store, epochs=60)
    wait_until(lambda: driver.reported() > 10)
    victim = driver.workers()[0]
    victim.kill()
    assert driver.wait() == 0, driver.said
    assert "has ended (signal 9); it is started again" in driver.said
    assert_sound(driver.url, TRIALS)
    found = open_study(driver.folder)
    assert (found.progress, found.summary.completed) == ("finished", TRIALS)
    assert (driver.folder / "report.html").is_file()
    assert "completed" in driver.log.read_text()
    assert not driver.workers()


@pytest.mark.slow
def test_a_driver_that_is_stopped_takes_its_workers_along_and_goes_on(tmp_path, store):
    driver = Driver(tmp_path, store, epochs=20)
    wait_until(lambda: driver.reported() > 4)
    driver.process.send_signal(signal.SIGINT)
    assert driver.wait() == 130, driver.said
    assert "2 workers asked to stop" in driver.said
    assert not driver.workers()
    assert TrialState.RUNNING not in {trial.state for trial in trials_of(driver.url)}
    reached = max(len(trial.intermediate_values) for trial in trials_of(driver.url))
    again = Driver(tmp_path, store, epochs=20)
    assert again.wait() == 0, again.said
    trials = assert_sound(driver.url, TRIALS)
    assert reached > 0
    assert "gone on with, begun by another process" in again.said
    assert all(trial.state == TrialState.COMPLETE for trial in trials)


@pytest.mark.slow
def test_workers_end_where_their_driver_is_killed_and_the_study_goes_on(tmp_path, store):
    driver = Driver(tmp_path, store, epochs=60)
    wait_until(lambda: driver.reported() > 10)
    driver.process.kill()
    driver.process.wait()
    wait_until(lambda: not driver.workers())
    again = Driver(tmp_path, store, epochs=60)
    assert again.wait() == 0, again.said
    assert_sound(driver.url, TRIALS)


def test_what_a_worker_refuses_is_said_in_its_words(tmp_path, store, monkeypatch):
    monkeypatch.setattr("search.workers.study_on_ray.FeatureStore", _Another)
    with pytest.raises(RefusedByWorkerError, match=r"store\.h5.*expected .*the driver was given") as refused:
        run_study_on_ray(store, address="local", workers=1, out=tmp_path / "study", trials=2, progress=False)
    assert refused.value.exit_status == 2


def test_stores_of_parts_have_the_names_of_those_to_train_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.h5", "large.h5", "one.h5", "other.h5"):
        build_store(tmp_path / name, rows=24)
    told = {"features": ["a=b.h5", "big=large.h5"], "validation": ["one.h5", "other.h5"]}
    expected = [("a=b", "a=b.h5"), ("big", "large.h5"), ("a=b", "one.h5"), ("big", "other.h5")]
    sent = sent_stores(RunOptions.given(told))
    assert [(one.name, one.address) for one in sent] == [(name, str(tmp_path / file)) for name, file in expected]
    (alone,) = sent_stores(RunOptions.given({"features": ["a=b.h5"]}))
    assert (alone.name, alone.address) == ("", str(tmp_path / "a=b.h5"))


def test_workers_that_share_a_gpu_share_its_memory(monkeypatch):
    names = "XLA_PYTHON_CLIENT_MEM_FRACTION", "TF_FORCE_GPU_ALLOW_GROWTH"
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert not Placement(gpus=1).environment.keys() & {*names}
    assert [Placement(gpus=0.5).environment[name] for name in names] == ["0.375", "true"]
    monkeypatch.setenv(names[0], "0.2")  # somebody knows better
    assert Placement(gpus=0.5).environment[names[0]] == "0.2"


def test_workers_have_the_whole_url_from_the_environment(tmp_path, store, monkeypatch):
    whole, placed = "postgresql://anna:hunter2@host/heads", []
    monkeypatch.setenv(VARIABLE, whole)
    monkeypatch.setattr(study_on_ray, "ray_session", lambda *_, **__: nullcontext())
    driver = SimpleNamespace(run=lambda _: None)
    monkeypatch.setattr(study_on_ray, "_Driver", lambda *_, url, **__: placed.append(url) or driver)
    options = RunOptions(features=[str(store)], storage="postgresql://anna@host/heads")
    monkeypatch.setattr(study_on_ray, "config_in_storage", lambda url, name: make_config(name=name, storage=url))
    study_on_ray.search_on_ray(options, "crew", tmp_path / "study", Placement())
    assert placed == [whole]
    # and no worker has shared a disk with this one
    assert open_study(tmp_path / "study").config.storage == "postgresql://anna:***@host/heads"


def test_once_the_study_is_there_workers_are_told_that_its_database_has_answered(tmp_path):
    placed, driver = [], object.__new__(study_on_ray._Driver)
    actor = SimpleNamespace(run=SimpleNamespace(remote=lambda words, stores, told, log: placed.append(told[ANSWERED])))
    driver._remote = SimpleNamespace(remote=lambda: actor)
    driver._placement, driver._words, driver._stores = Placement(), [], []
    driver._folder, driver._url = tmp_path, f"sqlite:///{tmp_path / 'a.db'}"
    with study_on_ray._Watch(driver._url, "made") as watch:
        for _ in range(2):
            driver._answered = watch.look()
            driver._start(study_on_ray._Placed(0))
            made = open_record(tmp_path, "made", driver._url, direction="maximize", resume=False)
            made.study.set_user_attr(CONFIG, make_config(storage=driver._url).to_dict())
            made.close()
    assert placed == ["", "1"]


def test_what_went_wrong_in_a_worker_itself_is_said(monkeypatch):
    import ray
    from ray.exceptions import ActorDiedError, RayTaskError

    def get(error: Exception) -> None:
        raise error

    driver = object.__new__(study_on_ray._Driver)
    driver._ray = SimpleNamespace(exceptions=ray.exceptions, get=get)
    failed = RayTaskError("run", "Traceback:\n  a line\nOSError: no room", OSError("no room"), "worker", 1, "10.0.0.2")
    assert driver._end_of(failed).host == "10.0.0.2"
    for raised in (failed, failed.as_instanceof_cause(), ActorDiedError(failed)):
        ended = driver._end_of(raised)
        assert (ended.status, ended.said) == (1, "error: OSError: no room")
    assert driver._end_of(ActorDiedError()) is None


def test_where_all_machines_are_gone_the_driver_ends_and_waits_for_nobody(capsys):
    driver, nodes = object.__new__(study_on_ray._Driver), [{"Alive": True}, {"Alive": False}]
    driver._placed = [study_on_ray._Placed(0, run="run", actor=SimpleNamespace())]
    driver._ray = SimpleNamespace(wait=lambda runs, **_: ([], runs), nodes=lambda: nodes)
    driver._look_after()
    nodes[0]["Alive"] = False
    with pytest.raises(BottleneckError, match="Ray is gone, and the workers with it: the same command goes on"):
        driver._look_after()
    driver._stop()
    assert capsys.readouterr().err == ""


def test_who_was_never_placed_does_not_answer_and_is_not_waited_for():
    killed, waited, driver = [], [], object.__new__(study_on_ray._Driver)

    def wait(tasks, *, num_returns, timeout):
        waited.append((tasks, num_returns, timeout))
        return [], [task for task in tasks if task.startswith("placed nowhere")]

    driver._gone = False
    driver._ray = SimpleNamespace(wait=wait, kill=killed.append, exceptions=SimpleNamespace(RayError=RuntimeError))
    driver._placed = [study_on_ray._Placed(9, actor=_actor("has ended"))]
    for number, name in enumerate(("at work", "placed nowhere", "dead")):
        driver._placed.append(study_on_ray._Placed(number, actor=_actor(name), run=f"{name}: run"))
    driver._stop()
    assert [actor.name for actor in killed] == ["placed nowhere"]
    asked, ends = ["at work: stop", "placed nowhere: stop"], ["at work: run", "placed nowhere: run", "dead: run"]
    assert waited == [(asked, 2, study_on_ray.HEARD_S), (ends, 3, study_on_ray.STOPPING_S)]


def _actor(name: str) -> SimpleNamespace:
    def stop() -> str:
        if name == "dead":
            raise RuntimeError(name)
        return f"{name}: stop"

    return SimpleNamespace(name=name, stop=SimpleNamespace(remote=stop))


def test_a_database_that_stands_still_keeps_no_stop_from_the_workers(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'a.db'}"
    made = open_record(tmp_path, "made", url, direction="maximize", resume=False)
    made.study.set_user_attr(CONFIG, make_config(storage=url).to_dict())
    made.close()
    unanswered: Future[None] = Future()
    monkeypatch.setattr(outages, "ANSWER_S", 0.0)
    monkeypatch.setattr(outages, "break_off", lambda: unanswered.set_exception(away()))
    without_end = Timer(30.0, unanswered.set_exception, [AssertionError("waited without end")])
    without_end.start()
    with study_on_ray._Watch(url, "made") as watch:
        assert watch.look()
        watch._opened._mirror._exchange = unanswered
    without_end.cancel()


def test_a_worker_whose_log_cannot_be_written_goes_on(tmp_path):
    (tmp_path / "workers").write_text("a file")
    worker = StudyWorker()
    worker._process = SimpleNamespace(stderr=["one\n", "two\n"])
    assert list(worker._listen(tmp_path / "workers" / "0.log")) == ["one", "two"]
    assert list(worker._listen(tmp_path / "0.log")) == ["one", "two"]
    assert (tmp_path / "0.log").read_text() == "one\ntwo\n"


def test_a_log_that_is_a_link_in_a_folder_from_elsewhere_writes_nowhere_else(tmp_path):
    (theirs := tmp_path / "theirs.txt").write_text("theirs\n")
    (tmp_path / "0.log").symlink_to(theirs)
    worker = StudyWorker()
    worker._process = SimpleNamespace(stderr=["one\n"])
    worker._listen(tmp_path / "0.log")
    assert theirs.read_text() == "theirs\n"
    assert (tmp_path / "0.log").read_text() == "one\n"


class _Another:
    """The driver's store is another one than that of its worker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def identity(self) -> dict[str, str]:
        return {"fingerprint": "0" * 64}


@pytest.mark.parametrize(
    ("name", "value"),
    [("resume", True), ("join", True), ("head", "own.py:build"), ("images", "scans"), ("channels", "auto")],
)
def test_what_is_not_for_a_cluster_is_refused_by_name(tmp_path, store, name, value):
    with pytest.raises(InputError, match=f"--{name}: expected none on a cluster, found {value}"):
        run_study_on_ray(store, address="local", out=tmp_path / "study", progress=False, **{name: value})
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--features", "STORE", "--storage", "sqlite:///a.db"), "--storage: expected a database server"),
        (("--features", "STORE"), "--storage: expected a database server"),
        (("--cpus-per-worker", "-1"), "--cpus-per-worker: expected 1 or more, found -1"),
        (("--workers", "0", "--address", "local", "--features", "STORE"), "--workers: expected 1 or more, found 0"),
        ((), "--features: expected a store, or its address"),
        (("--features", "no/such.h5", "--address", "local"), "no/such.h5: expected a feature store"),
        (
            ("--features", "STORE", "--address", "local", "--out", "s3://bucket/study"),
            "--out: expected a folder, found s3",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_started(tmp_path, store, words, said):
    told = [str(store) if word == "STORE" else word for word in words]
    ended = invoke("search.cluster", "run", "--out", tmp_path / "study", *told)
    assert ended.status == 2
    assert said in ended.err
    assert not (tmp_path / "study").exists()
