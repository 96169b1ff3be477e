"""``search.run`` and ``search.export`` as a user runs them: a study, kills, resumes, refusals, an export."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import Said, command, invoke, succeed
from conftest import ROOT, build_store
from tiny_study import STUDY, table

from features.rows.feed import Feed
from features.store.reader import FeatureStore
from heads.files.head_file import read_head
from heads.metrics.scoring import predict_probabilities, score
from search.record.storage import load_study
from search.setup.audit import read_audit
from search.trials.notes import TrialNotes
from search.trials.ranking import ranking


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.h5"
    return build_store(path, rows=240, views=("identity", "flip"), shape=(3, 3, 8))


@pytest.fixture(scope="module")
def study_file(store: Path) -> Path:
    path = store.with_name("tiny.toml")
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def searched(store: Path, study_file: Path) -> tuple[Path, Said]:
    """A study that has ended, not to be changed, and what its search said."""
    folder = store.with_name("study")
    few = ("--finalists", 2, "--repeats", 3, "--folds", 0)
    return folder, succeed("search.run", "--features", store, "--study", study_file, "--out", folder, *few)


def read(folder: Path, name: str = "summary") -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return told


def test_a_study_says_what_it_found(searched, store):
    folder, done = searched
    summary = read(folder)
    assert summary["trials"] == 8 == summary["completed"] + summary["pruned"] + summary["failed"]
    assert summary["trial_epochs"] == sum(len(row[4]) for row in table(folder))
    assert summary["trial_epochs_per_second"] > 0
    assert summary["best"]["value"] >= summary["article"]["value"] > 0.25
    assert summary["best"]["params"]["conv_width"] % 16 == 0
    assert "best on test" in done.out
    assert f"{summary['best']['value']:.4f}" in done.out
    assert summary["verdict"] in done.out.replace("\n", " ")

    split = read(folder, "split")
    opened = FeatureStore(store)
    parts = [set(opened.patients[split["rows"][name]]) for name in ("train", "validation", "test")]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert sum(split["counts"].values()) == 240
    audit = read_audit(folder)
    assert (audit["rows"], audit["patients"], audit["patients_shared"]) == (split["counts"], split["patients"], 0)
    assert "patients in two parts: 0" in done.err
    assert "near-identical images across parts: none" in done.err
    assert summary["test"]["rows"] == split["counts"]["test"]
    assert summary["test"]["uses"] == 1
    assert summary["audit"]["patients_shared"] == 0
    assert "Patients: train" in (folder / "report.html").read_text(encoding="utf-8")


def test_a_study_keeps_the_best_heads_and_repeats_the_finalists(searched):
    folder, _ = searched
    kept = {path.name for path in (folder / "heads").iterdir()}
    best = [trial.number for trial in ranking(load_study(folder, "tiny", None))]
    finalists = {*best[:2], 0}
    names = {f"trial-{number}.hdf5" for number in {*best[:5], 0}}
    winner = read(folder)["best"]["number"]  # whose average from several seeds may be recommended
    copies = {f"copy-{winner}-{copy}.hdf5" for copy in range(1, 3)}
    assert kept == names | {f"refit-{number}.hdf5" for number in finalists} | copies
    check_repeats(read(folder), finalists)


@pytest.mark.slow
def test_a_study_that_has_ended_goes_on_only_where_it_is_told_to(searched, store, study_file, tmp_path):
    folder = Path(shutil.copytree(searched[0], tmp_path / "study"))
    summary, audited = read(folder), (folder / "audit.json").stat().st_mtime_ns
    again = invoke("search.run", "--features", store, "--study", study_file, "--out", folder)
    assert again.status == 2
    assert "--resume" in again.err
    finished = succeed("search.run", "--out", folder, "--resume")
    # Nothing is left to train, and the test rows are not used again.
    assert re.search(r"^(trial|repeat) \d+:", finished.err, re.MULTILINE) is None
    same = read(folder)
    assert [same[name] for name in ("best", "finalists", "test")] == [
        summary[name] for name in ("best", "finalists", "test")
    ]
    resumed = succeed("search.run", "--out", folder, "--resume", "--trials", 10)
    assert "trial 8" in resumed.err
    assert "near-identical images across parts: none" in resumed.err
    assert (folder / "audit.json").stat().st_mtime_ns == audited
    after = read(folder)
    assert after["trials"] == 10
    moved = after["test"]["heads"] != summary["test"]["heads"]
    assert after["test"]["uses"] == 1 + moved


def test_the_trials_own_head_scores_what_was_recorded(searched, store, tmp_path):
    folder, place = searched[0], tmp_path
    summary, split = read(folder), read(folder, "split")
    out = place / "best.hdf5"
    chosen = summary["best"]["number"]
    feed = Feed(FeatureStore(store), np.array(split["rows"]["validation"]), memory_bytes=2**30)
    succeed("search.export", folder, out, "--trial", chosen)
    head = read_head(out)
    assert head.metadata.trial == chosen
    assert head.model.count_params() == summary["best"]["parameters"]
    scored = score(predict_probabilities(keras.models.load_model(out), feed), feed.labels)
    assert scored.accuracy == summary["best"]["value"] == head.metadata.value
    assert head.metadata.refit is None


def test_the_head_that_leaves_was_trained_on_more_and_tested(searched, store, tmp_path):
    folder, place = searched[0], tmp_path
    summary, split = read(folder), read(folder, "split")
    out, chosen = place / "best.hdf5", summary["best"]["number"]
    succeed("search.export", folder, out)
    head = read_head(out)
    again = summary["refit"]
    assert head.metadata.trial == chosen == again["trial"]
    assert head.metadata.value is None
    assert head.metadata.refit["parts"] == ["train", "validation"] == again["parts"]
    assert head.metadata.refit["rows"] == split["counts"]["train"] + split["counts"]["validation"] == again["rows"]
    assert head.metadata.temperature == summary["calibration"]["temperature"] > 0
    succeed("search.export", folder, place / "all.hdf5", "--ensemble")
    together = json.loads(succeed("heads.evaluate", place / "all.hdf5", store, "--part", "test", "--json").out)
    assert read_head(place / "all.hdf5").metadata.trials == tuple(summary["ensemble"]["trials"])
    assert together["confusion"] == summary["test"]["ensemble"]["confusion"]
    assert together["loss"] == pytest.approx(summary["test"]["ensemble"]["loss"], rel=1e-4)
    succeed("search.export", folder, place / "first.hdf5", "--trial", 0)
    assert read_head(place / "first.hdf5").metadata.trial == 0

    evaluated = json.loads(succeed("heads.evaluate", out, store, "--part", "test", "--json").out)
    test = summary["test"]
    assert [evaluated[name] for name in ("rows", "patients", "accuracy", "accuracy_interval", "confusion")] == [
        test[name] for name in ("rows", "patients", "accuracy", "accuracy_interval", "confusion")
    ]
    assert evaluated["loss"] == pytest.approx(test["loss"], rel=1e-5)
    assert test["article"]["trial"] == 0
    assert test["ensemble"]["rows"] == test["rows"]


def check_repeats(summary: dict, finalists: set[int]) -> None:
    heads = summary["finalists"]["heads"]
    assert {one["trial"] for one in heads} == finalists
    for one in heads:
        assert one["repeats"] == 3 == len(one["values"]) == len(set(one["losses"]))
        assert one["mean"] == pytest.approx(np.mean(one["values"]))
        assert one["sd"] == pytest.approx(np.std(one["values"], ddof=1))
    assert heads[0]["trial"] == summary["best"]["number"]
    assert heads[0]["mean"] == max(one["mean"] for one in heads)
    assert [one["trial"] for one in heads if one["is_article"]] == [0]
    epochs = np.mean(heads[0]["best_epochs"])
    assert summary["refit"]["epochs"] == round(epochs)


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
    assert ranked[0].value == pytest.approx(min(curve.values()), rel=0.2)
    assert all(trial.value == trial.user_attrs["validation_loss"] for trial in ranked)
    means = [one["mean"] for one in summary["finalists"]["heads"]]
    assert means == sorted(means)
    assert summary["refit"]["parts"] == ["train"]  # all that is not for the test
    counts = read(folder, "split")["counts"]
    assert summary["refit"]["rows"] == counts["train"] == 240 - counts["test"]
    succeed("search.export", folder, out)
    evaluated = json.loads(succeed("heads.evaluate", out, store, "--part", "test", "--json").out)
    assert evaluated["accuracy"] == summary["test"]["accuracy"]
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


def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_changed(tmp_path, searched, store):
    folder, study_file = searched[0], store.with_name("tiny.toml")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    small = build_store(tmp_path / "small.h5", rows=6)
    wider = tmp_path / "wider.toml"
    wider.write_text(STUDY.replace("high = 48", "high = 64"))
    cut = tmp_path / "cut.h5"
    cut.write_bytes(store.read_bytes()[:-1000])
    refusals = {
        ("--resume", "--out", folder, "--features", small): "small.h5",
        ("--resume", "--out", folder, "--study", wider): "space.conv_width",
        ("--resume", "--out", folder, "--seed", 9): "seed",
        ("--resume", "--out", folder, "--epochs", 3): "epochs",
        ("--resume", "--out", folder, "--objective", "auc"): "objective",
        ("--resume", "--out", tmp_path / "none"): "study.json",
        ("--features", tmp_path / "absent.h5", "--out", tmp_path / "new"): "absent.h5",
        ("--features", cut, "--out", tmp_path / "new"): "cut.h5",
        ("--features", study_file, "--out", tmp_path / "new"): "tiny.toml",
        ("--features", store, "--validation", small, "--out", tmp_path / "new"): "feature_shape",
        ("--features", store, "--study", tmp_path / "no.toml", "--out", tmp_path / "new"): "no.toml",
        ("--features", store, "--validation-fraction", 0, "--out", tmp_path / "new"): "--validation-fraction",
        (
            "--features",
            store,
            "--validation-fraction",
            0.6,
            "--test-fraction",
            0.6,
            "--out",
            tmp_path / "new",
        ): "--test",
        ("--features", store, "--trials", 0): "--trials",
        ("--features", store, "--sampler", "oracle"): "--sampler",
        ("--features", store, "--storage", "nonsense", "--out", tmp_path / "new"): "--storage",
        ("--featurs", store): "--featurs",
    }
    for arguments, named in refusals.items():
        status, _, err = invoke("search.run", *arguments)
        assert status == 2
        assert named in err, (arguments, err)
        assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "new" / "study.json").exists()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before

    for arguments, named in {
        (tmp_path / "none", tmp_path / "x.hdf5"): "study.json",
        (folder, tmp_path / "x.pt"): "x.pt",
        (folder, tmp_path / "x.hdf5", "--trial", 77): "--trial",
        (folder, tmp_path / "no" / "x.hdf5"): "no",
    }.items():
        status, _, err = invoke("search.export", *arguments)
        assert status == 2
        assert named in err
        assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.hdf5"))


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
