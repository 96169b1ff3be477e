"""``search.run`` and ``search.export`` as a user runs them: a study, kills, resumes, refusals, an export."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import build_store

from features.feed import Feed
from features.store import FeatureStore
from heads.files import load_head
from heads.scoring import predict_probabilities, score
from search.audit import read_audit
from search.storage import load_study
from search.trials import is_counted, ranking

ROOT = Path(__file__).resolve().parents[1]
STUDY = """
name = "tiny"
[run]
trials = 8
epochs = 6
batch_size = 16
[space]
conv_width = { low = 16, high = 48, step = 16 }
dropout = { low = 0.0, high = 0.5 }
pooling = ["flatten", "average", "max"]
dense_layers = [0, 1]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return build_store(tmp_path / "store.h5", rows=240, views=("identity", "flip"), shape=(3, 3, 8))


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(STUDY)
    return path


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def run(module: str, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(module, *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def table(folder: Path) -> list[tuple]:
    trials = [t for t in load_study(folder, "tiny", None).get_trials() if is_counted(t)]
    trials.sort(key=lambda t: t.user_attrs["ordinal"])
    return [(t.user_attrs["ordinal"], t.state, t.value, t.params, t.intermediate_values) for t in trials]


def test_a_study_from_store_to_exported_head(tmp_path, store, study_file):
    folder, out = tmp_path / "study", tmp_path / "best.hdf5"
    done = run("search.run", "--features", store, "--study", study_file, "--out", folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["trials"] == 8 == summary["completed"] + summary["pruned"] + summary["failed"]
    assert summary["trial_epochs"] == sum(len(row[4]) for row in table(folder))
    assert summary["trial_epochs_per_second"] > 0
    assert summary["best"]["value"] >= summary["article"]["value"] > 0.25
    assert summary["best"]["params"]["conv_width"] % 16 == 0
    assert "best on test" in done.stdout
    assert f"{summary['best']['value']:.4f}" in done.stdout

    split = json.loads((folder / "split.json").read_text())
    opened = FeatureStore(store)
    parts = [set(opened.patients[split["rows"][name]]) for name in ("train", "validation", "test")]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert sum(split["counts"].values()) == 240
    audit = read_audit(folder)
    assert (audit["rows"], audit["patients"], audit["patients_shared"]) == (split["counts"], split["patients"], 0)
    assert "patients in two parts: 0" in done.stderr
    assert "near-identical images across parts: none" in done.stderr
    audited = (folder / "audit.json").stat().st_mtime_ns
    assert summary["test"]["rows"] == split["counts"]["test"]
    assert summary["test"]["uses"] == 1

    kept = {path.name for path in (folder / "heads").iterdir()}
    best = [trial.number for trial in ranking(load_study(folder, "tiny", None))]
    assert kept == {f"trial-{number}.hdf5" for number in {*best[:5], 0}}

    run("search.export", folder, out)
    head = load_head(out)
    assert head.metadata.trial == best[0] == summary["best"]["number"]
    assert head.model.count_params() == summary["best"]["parameters"]
    feed = Feed(opened, np.array(split["rows"]["validation"]), memory_bytes=2**30)
    scored = score(predict_probabilities(keras.models.load_model(out), feed), feed.labels)
    assert scored.accuracy == summary["best"]["value"] == head.metadata.value
    run("search.export", folder, tmp_path / "first.hdf5", "--trial", 0)
    assert load_head(tmp_path / "first.hdf5").metadata.trial == 0

    again = run("search.run", "--features", store, "--study", study_file, "--out", folder, status=2)
    assert "--resume" in again.stderr
    resumed = run("search.run", "--out", folder, "--resume", "--trials", 10)
    assert "trial 8" in resumed.stderr
    assert "near-identical images across parts: none" in resumed.stderr
    assert (folder / "audit.json").stat().st_mtime_ns == audited
    after = json.loads((folder / "summary.json").read_text())
    assert after["trials"] == 10
    moved = after["best"]["number"] != summary["best"]["number"]
    assert after["test"]["uses"] == 1 + moved


@pytest.mark.parametrize(("engine", "trials", "epochs"), [("fused", 14, 6), ("solo", 5, 3)])
def test_killed_and_resumed_the_table_is_that_of_an_undisturbed_run(
    tmp_path, store, study_file, engine, trials, epochs
):
    plain, killed = tmp_path / "plain", tmp_path / "killed"
    options = ["--features", store, "--study", study_file, "--seed", 5, "--engine", engine]
    options += ["--trials", trials, "--epochs", epochs]
    run("search.run", *options, "--out", plain)
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
        _wait_until_it_works(process, journal, before)
        if attempt == 0:
            second = run("search.run", *options, "--out", killed, "--resume", status=1)
            assert "another process is writing it" in second.stderr
        time.sleep(chance.uniform(0.5, 2))
        process.send_signal(signal.SIGINT if attempt == 1 else signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        if attempt == 1:
            assert process.returncode == 130
            assert "--resume" in said
            assert "Traceback" not in said
    run("search.run", "--out", killed, "--resume")
    assert table(killed) == table(plain)
    assert all(trial.state.is_finished() for trial in load_study(killed, "tiny", None).get_trials())
    best = {folder: json.loads((folder / "summary.json").read_text())["best"] for folder in (plain, killed)}
    assert best[plain]["value"] == best[killed]["value"]


def _wait_until_it_works(process: subprocess.Popen[str], journal: Path, before: bytes) -> None:
    """Returns once the process has written to the journal."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes() != before:
            return
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1] if process.poll() is not None else "nothing was recorded in time")


def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_changed(tmp_path, store, study_file):
    folder = tmp_path / "study"
    options = ["--features", store, "--study", study_file, "--out", folder]
    run("search.run", *options, "--trials", 2, "--epochs", 2)
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
        done = run("search.run", *arguments, status=2)
        assert named in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "new" / "study.json").exists()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before

    for arguments, named in {
        (tmp_path / "none", tmp_path / "x.hdf5"): "study.json",
        (folder, tmp_path / "x.keras"): "x.keras",
        (folder, tmp_path / "x.hdf5", "--trial", 77): "--trial",
        (folder, tmp_path / "no" / "x.hdf5"): "no",
    }.items():
        done = run("search.export", *arguments, status=2)
        assert named in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.hdf5"))


def test_diverging_heads_fail_with_their_reason_and_the_study_goes_on(tmp_path, store):
    study_file = tmp_path / "wild.toml"
    study_file.write_text('name = "wild"\n[space]\nlearning_rate = [1e-3, 1e30]\n')
    folder = tmp_path / "study"
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    arguments = ["--features", store, "--study", study_file, "--out", folder, "--storage", url]
    run("search.run", *arguments, "--trials", 8, "--epochs", 2, "--sampler", "random", "--pruner", "none")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["failed"] >= 1
    assert summary["completed"] >= 1
    assert summary["failed"] + summary["completed"] == 8
    assert len(summary["failures"]) == summary["failed"]
    assert all("diverged in epoch" in reason for reason in summary["failures"].values())
    assert not (folder / "journal.log").exists()
    assert len(load_study(folder, "wild", url).get_trials()) == 8
