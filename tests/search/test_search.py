"""``search.run`` and ``search.export`` as a user runs them: a study, kills, resumes, refusals, an export."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import command, invoke, succeed
from conftest import ROOT, build_store
from tiny_study import STUDY, read, table, tiny_store

from search.record.storage import load_study
from search.trials.notes import TrialNotes
from search.trials.ranking import ranking


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def study_file(store: Path) -> Path:
    path = store.with_name("tiny.toml")
    path.write_text(STUDY)
    return path


@pytest.mark.slow
def test_another_objective_with_folds_and_class_weights(tmp_path, store, study_file):
    folder, out = tmp_path / "study", tmp_path / "best.hdf5"
    options = ["--objective", "loss", "--class-weights", "balanced", "--patience", 2, "--folds", 3]
    few = ("--finalists", 1, "--repeats", 2, "--epochs", 5, "--trials", 5)
    succeed("search.run", "--features", store, "--study", study_file, "--out", folder, *options, *few)
    summary = read(folder)
    study = load_study(folder, "tiny", None)
    ranked = ranking(study)
    assert study.direction.name == "MINIMIZE"
    assert [trial.value for trial in ranked] == sorted(trial.value for trial in ranked)
    curve = ranked[0].intermediate_values  # on the first view; the value is that of the lowest epoch over all views
    assert TrialNotes.of(ranked[0]).best_epoch == min(curve, key=curve.__getitem__)
    assert ranked[0].value == pytest.approx(min(curve.values()), abs=0.1)
    assert all(trial.value == trial.user_attrs["validation_loss"] for trial in ranked)
    means = [one["mean"] for one in summary["finalists"]["heads"]]
    assert means == sorted(means)
    assert summary["refit"]["parts"] == ["train"]  # all that is not for the test
    counts = read(folder, "split")["counts"]
    assert summary["refit"]["rows"] == counts["train"] == 240 - counts["test"]
    succeed("search.export", folder, out)
    evaluated = json.loads(succeed("heads.evaluate", out, store, "--part", "test", "--json").out)
    tested = summary["test"].get("recommended") or summary["test"]  # what leaves is what is recommended
    assert evaluated["accuracy"] == tested["accuracy"]
    report = succeed("search.report", folder)
    assert "report.html" in report.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "stores", "trials", "epochs"), [("fused", 1, 14, 6), ("solo", 1, 7, 24), ("fused", 3, 18, 6)]
)
def test_killed_and_resumed_the_table_is_that_of_an_undisturbed_run(
    tmp_path, store, study_file, engine, stores, trials, epochs
):
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    options = ["--features", store, "--study", study_file, "--seed", 5, "--engine", engine]
    for number in range(1, stores):  # of the same images
        other = build_store(tmp_path / f"{number}.h5", rows=240, views=("identity",), shape=(2, 2, 8), seed=number)
        options += ["--features", other]
    options += ["--trials", trials, "--epochs", epochs, "--finalists", 0, "--folds", 0]
    succeed("search.run", *options, "--out", plain)
    chance = random.Random(3)
    for attempt in range(3):
        journal = killed / "journal.log"
        before = journal.read_bytes() if journal.exists() else b""
        resume = ["--resume"] if (killed / "study.json").exists() else []
        process = subprocess.Popen(
            command("search.run", *options, "--out", killed, "--snapshot-every", 0.2, *resume),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(chance.randint(1, 2)):  # by what was recorded, not by a clock: a fast machine would be through
            before = _wait_until_it_works(process, journal, before)
        if attempt == 0:
            process.send_signal(signal.SIGSTOP)  # there is to be something left for the others, however long this takes
            second = invoke("search.run", *options, "--out", killed, "--resume")
            assert second.status == 1
            assert "another process is writing it" in second.err
        process.send_signal(signal.SIGINT if attempt == 1 else signal.SIGKILL)
        _, said = process.communicate()
        if attempt == 1:
            assert process.returncode == 130, said
            assert "--resume" in said
            assert "Traceback" not in said
    succeed("search.run", "--out", killed, "--resume")
    assert table(killed) == table(plain)
    assert all(trial.state.is_finished() for trial in load_study(killed, "tiny", None).get_trials())
    ends = [read(folder) for folder in (plain, killed)]
    for name in ("calibration", "test", "verdict"):
        assert without_time(ends[0][name]) == without_time(ends[1][name]), name
    assert ends[0]["best"]["value"] == ends[1]["best"]["value"]


def without_time(told: object) -> object:
    """Leaves out what it took, and numbers of trials: one that was interrupted and run again has another."""
    if isinstance(told, dict):
        return {name: without_time(value) for name, value in told.items() if name not in ("cost", "trial", "trials")}
    return [without_time(one) for one in told] if isinstance(told, list) else told


@pytest.mark.slow
def test_killed_among_the_repeats_and_resumed_they_are_those_of_an_undisturbed_run(tmp_path, store, study_file):
    options = ["--features", store, "--study", study_file, "--trials", 4, "--epochs", 12]
    options += ["--finalists", 2, "--repeats", 4, "--folds", 0, "--snapshot-every", 0.1]
    succeed("search.run", *options, "--out", tmp_path / "plain")
    killed = tmp_path / "killed"
    journal = killed / "finalists" / "journal.log"
    process = subprocess.Popen(
        command("search.run", *options, "--out", killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    before = _wait_until_it_works(process, journal, b"")
    _wait_until_it_works(process, journal, before)
    process.kill()
    process.communicate()
    assert not (killed / "summary.json").exists()
    resumed = succeed("search.run", "--out", killed, "--resume")
    assert "trial 3" not in resumed.err
    ends = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("plain", "killed")]
    for name in ("finalists", "refit", "calibration", "test", "verdict"):
        assert without_time(ends[0][name]) == without_time(ends[1][name]), name


def _wait_until_it_works(process: subprocess.Popen, journal: Path, before: bytes) -> bytes:
    """Returns what the journal holds once the process has written to it."""
    while process.poll() is None:
        began = journal.with_name("study.json").exists()  # which comes after the journal: then it can be resumed
        if began and (now := journal.read_bytes()) != before:
            return now
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
def test_diverging_heads_fail_with_their_reason_and_the_study_goes_on(tmp_path, store):
    study_file = tmp_path / "wild.toml"
    study_file.write_text('name = "wild"\n[space]\nlearning_rate = [1e-3, 1e30]\n')
    folder = tmp_path / "study"
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    arguments = ["--features", store, "--study", study_file, "--out", folder, "--storage", url]
    arguments += ["--trials", 8, "--epochs", 2, "--sampler", "random", "--pruner", "none"]
    succeed("search.run", *arguments, "--finalists", 2, "--repeats", 2, "--folds", 0)
    summary = read(folder)
    assert summary["failed"] >= 1
    assert summary["completed"] >= 1
    assert summary["failed"] + summary["completed"] == 8
    assert len(summary["failures"]) == summary["failed"]
    assert all("diverged in epoch" in reason for reason in summary["failures"].values())
    assert not (folder / "journal.log").exists()
    assert len(load_study(folder, "wild", url).get_trials()) == 8
