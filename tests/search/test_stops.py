"""A study that is asked to stop, or whose disk is full, stops in good order and ends as if it had not."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from commands import invoke
from conftest import build_store
from killed_study import Ended, found_in, made_searches, search
from limited_files import largest_file
from optuna.trial import FrozenTrial

from features.runtime.errors import DiskFullError, InputError, Terminated
from search import open_study, run_study
from search.record.head_files import kept_numbers
from search.training.display import Display
from search.trials.notes import TrialNotes


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> Iterator[Ended]:
    with made_searches():
        yield search(tmp_path_factory.mktemp("stops"))


@contextmanager
def signals(kinds: list[signal.Signals], *, after: int) -> Iterator[None]:
    """Sends this process signals, all at once, after so many epochs of a bank."""
    real, epochs = Display.epoch, []

    def epoch(display: Display, trained: int = 1) -> None:
        real(display, trained)
        epochs.append(trained)
        if len(epochs) == after:
            for kind in kinds:
                signal.raise_signal(kind)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Display, "epoch", epoch)
        yield


TRIALS, REPEATS = "trials", "repeats"
STOPS = {
    "Ctrl-C among the trials": ([signal.SIGINT], TRIALS, KeyboardInterrupt),
    "SIGTERM among the trials": ([signal.SIGTERM], TRIALS, Terminated),
    "SIGTERM among the repeats": ([signal.SIGTERM], REPEATS, Terminated),
    "Ctrl-C twice": ([signal.SIGINT, signal.SIGINT], TRIALS, KeyboardInterrupt),
    "SIGTERM, then Ctrl-C": ([signal.SIGTERM, signal.SIGINT], REPEATS, KeyboardInterrupt),
}


@pytest.mark.parametrize("name", STOPS)
def test_a_study_that_was_stopped_goes_on_as_if_it_had_not_been(ended, name):
    kinds, among, raised = STOPS[name]
    before = {kind: signal.getsignal(kind) for kind in kinds}
    after = 3 if among == TRIALS else ended.epochs + 2
    with signals(kinds, after=after), pytest.raises(KeyboardInterrupt) as stopped:
        ended.begin_anew(snapshot_every=0 if len(kinds) > 1 else 1e9)
    assert type(stopped.value) is raised
    assert {kind: signal.getsignal(kind) for kind in kinds} == before
    assert open_study(ended.folder).progress == "stopped"
    run_study(out=ended.folder, resume=True, progress=False)
    assert found_in(ended.folder) == ended.found


def test_a_damaged_summary_is_refused_before_a_trial_is_asked_for(ended, tmp_path):
    folder = shutil.copytree(ended.copies["end 0"], tmp_path / "study")
    (folder / "summary.json").write_text("{")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"summary\.json: expected .*; put a copy back, or remove it and --resume"):
        run_study(out=folder, resume=True, trials=12, progress=False)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_while_it_was_stopped_no_time_passed_for_it(ended):
    with signals([signal.SIGINT], after=3), pytest.raises(KeyboardInterrupt):
        ended.begin_anew(snapshot_every=1e9)
    stopped = datetime.now()
    time.sleep(0.5)
    begun = datetime.now()
    study = run_study(out=ended.folder, resume=True, progress=False)
    trials = study.record.study.get_trials()
    pauses = {trial.number: TrialNotes.of(trial).pauses for trial in trials if TrialNotes.of(trial).pauses}
    over = [t.number for t in trials if t.datetime_start < stopped and t.datetime_complete > begun]
    assert list(pauses) == over != []
    for ((since, until),) in pauses.values():
        assert since <= stopped
        assert until >= begun
    away = (begun - stopped).total_seconds()
    whole = max(t.datetime_complete for t in trials) - min(t.datetime_start for t in trials)
    assert 0 < study.summary.search_seconds <= whole.total_seconds() - away
    for number in over:
        lasted = trials[number].datetime_complete - trials[number].datetime_start
        assert 0 < study.trials().seconds[number] <= lasted.total_seconds() - away


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Iterator[Ended]:
    with made_searches():
        yield search(tmp_path_factory.mktemp("alone"), engine="solo", trials=4)


def test_an_interrupt_that_got_lost_is_heeded_after_the_epoch(alone):
    """TensorFlow's C++ side may be importing something when it comes, and goes on."""
    real, epochs = Display.epoch, []

    def epoch(display: Display, trained: int = 1) -> None:
        real(display, trained)
        epochs.append(trained)
        if len(epochs) == 3:
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Display, "epoch", epoch)
        alone.begin_anew()
    assert len(epochs) == 3
    run_study(out=alone.folder, resume=True, progress=False)
    ended = found_in(alone.folder)["summary"]  # the trial that was interrupted began anew, under another number
    assert [ended[name] for name in ("trials", "completed", "pruned")] == [
        alone.found["summary"][name] for name in ("trials", "completed", "pruned")
    ]
    assert ended["best"]["value"] == alone.found["summary"]["best"]["value"]


def test_stopped_once_a_trial_was_told_its_head_is_there(alone, monkeypatch):
    real = optuna.Study.tell

    def tell(study: optuna.Study, *told, **how) -> FrozenTrial:
        trial = real(study, *told, **how)
        if trial.number == 1:
            raise KeyboardInterrupt
        return trial

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(optuna.Study, "tell", tell)
        alone.begin_anew()
    assert {trial.number for trial in open_study(alone.folder).record.ranked} == {0, 1}
    assert kept_numbers(alone.folder) == [0, 1]


@pytest.mark.parametrize("joins", [False, True])
def test_terminated_after_the_trials_the_command_says_how_to_go_on(ended, monkeypatch, tmp_path, joins):
    def refit(*_):
        signal.raise_signal(signal.SIGTERM)

    shutil.rmtree(ended.folder)
    given = [f"--{name}={ended.options[name]}" for name in ("study", "out", "finalists", "repeats", "folds")]
    given += [f"--features={store}" for store in ended.options["features"]]
    given += ["--join", f"--storage=sqlite:///{tmp_path}/a.db"] if joins else []
    with monkeypatch.context() as patched:
        patched.setattr("search.finish.final_heads.refit", refit)
        said = invoke("search.run", *given)
    assert said.status == 143
    how = "again" if joins else "with --resume to go on"
    assert said.err.splitlines()[-1] == f"terminated; run the same command {how}"
    assert "Traceback" not in said.err
    assert "its best heads are trained again" in said.err
    monkeypatch.setattr("search.review.outcome.trained_in_words", lambda _: None)  # which made heads do not tell
    assert invoke("search.run", *given, *([] if joins else ["--resume"])).status == 0
    assert joins or found_in(ended.folder) == ended.found


def test_stopped_before_there_is_a_study_the_command_says_to_run_it_again(tmp_path, monkeypatch):
    def audit_study(*_, **__):
        signal.raise_signal(signal.SIGINT)

    build_store(tmp_path / "store.h5", rows=96)
    monkeypatch.setattr("search.running.audit_study", audit_study)
    given = [f"--features={tmp_path / 'store.h5'}", f"--out={tmp_path / 'study'}", "--folds=0"]
    for _ in range(2):  # as it says
        said = invoke("search.run", *given)
        assert said.status == 130
        assert said.err.splitlines()[-1] == "interrupted; run the same command again"


# --- full disks ---------------------------------------------------------------------------------------------------


@contextmanager
def disk(*, full_after: int) -> Iterator[list[int]]:
    """Lets every sync to the disk fail after so many of them: yields what counts them."""
    real, synced = os.fsync, []

    def fsync(descriptor: int) -> None:
        if len(synced) >= full_after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced.append(descriptor)
        real(descriptor)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        yield synced


def test_a_full_disk_is_one_line_wherever_it_is_met_and_nothing_is_lost(ended):
    with disk(full_after=10**9) as synced:
        ended.begin_anew()
    assert found_in(ended.folder) == ended.found
    for writes in range(1, len(synced), max(1, len(synced) // 6)):
        with disk(full_after=writes), pytest.raises(DiskFullError) as refused:
            ended.begin_anew()
        assert refused.value.exit_status == 1
        if not (ended.folder / "study.json").exists():
            assert str(refused.value).endswith("make room and run the same command again")
            continue
        assert str(refused.value).endswith("make room and go on with --resume")
        assert str(ended.folder) in str(refused.value)
        run_study(out=ended.folder, resume=True, progress=False)
        assert found_in(ended.folder) == ended.found, writes


@pytest.mark.parametrize(("name", "share"), [("journal.log", 0.5), ("journal.log", 0.9), ("summary.json", 0.5)])
def test_a_file_that_cannot_grow_is_mended(ended, name, share):
    size = int(share * (ended.copies["end 0"] / name).stat().st_size)
    with largest_file(size), pytest.raises(DiskFullError):
        ended.begin_anew(snapshot_every=1e9)
    run_study(out=ended.folder, resume=True, progress=False)
    assert found_in(ended.folder) == ended.found


@pytest.mark.parametrize("room", [60_000, 400_000])
def test_a_small_disk_is_filled_and_room_made(ended, room):
    shutil.rmtree(ended.folder)
    ended.folder.mkdir()
    with mounted(ended.folder, room):
        with pytest.raises(DiskFullError):
            run_study(**ended.options)
        subprocess.run(["mount", "-o", "remount,size=64m", ended.folder], check=True)
        run_study(out=ended.folder, resume=True, progress=False)
        assert found_in(ended.folder) == ended.found


@contextmanager
def mounted(place: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes; skips where nobody may make one."""
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
