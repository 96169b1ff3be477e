"""One small study that ``search.run`` has searched to its end: what it says, writes, exports, refuses and shows."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from commands import Said, invoke, succeed
from conftest import build_store
from tiny_study import ONE_KIND, read, table, tiny_store

from features.rows.feed import Feed
from features.runtime.errors import BottleneckError, InputError
from features.runtime.lock import WriterLock
from features.store.reader import FeatureStore
from heads.files.head_file import read_head
from heads.metrics.scoring import predict_probabilities, score
from heads.model.spec import HeadSpec
from search import Study, open_study, run_study
from search.record.storage import load_study
from search.setup.audit import read_audit
from search.setup.file_names import STUDY_FILE
from search.trials.ranking import ranking


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def study_file(store: Path) -> Path:
    path = store.with_name("tiny.toml")
    path.write_text(ONE_KIND)
    return path


@pytest.fixture(scope="module")
def searched(store: Path, study_file: Path) -> tuple[Path, Said]:
    """A study that has ended, not to be changed, and what its search said."""
    folder = store.with_name("study")
    few = ("--finalists", 2, "--repeats", 3, "--folds", 0)
    return folder, succeed("search.run", "--features", store, "--study", study_file, "--out", folder, *few)


@pytest.fixture
def study(searched: tuple[Path, Said]) -> Study:
    return open_study(searched[0])


# --- its files and the heads that leave it --------------------------------------------------------------------------


def test_a_study_says_what_it_found(searched, store):
    folder, done = searched
    summary = read(folder)
    assert summary["trials"] == 8 == summary["completed"] + summary["pruned"] + summary["failed"]
    assert summary["trial_epochs"] == sum(len(row[4]) for row in table(folder))
    assert summary["trial_epochs_per_second"] > 0
    assert summary["best"]["value"] >= summary["article"]["value"] > 0.25
    assert summary["best"]["params"]["conv_width"] % 16 == 0
    assert "found head on test" in done.out
    assert f"{summary['best']['value']:.4f}" in done.out
    assert summary["verdict"] in done.out.replace("\n", " ")

    split = read(folder, "split")
    opened = FeatureStore(store)
    parts = [set(opened.patients[split["rows"][name]]) for name in ("train", "validation", "test")]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert sum(split["counts"].values()) == 240
    audit = read_audit(folder)
    assert (audit.rows, audit.patients, audit.patients_shared) == (split["counts"], split["patients"], 0)
    assert "patients in two parts: 0" in done.err
    assert "near-identical images across parts: none" in done.err
    assert summary["test"]["rows"] == split["counts"]["test"]
    assert summary["test"]["uses"] == 1
    assert summary["audit"]["patients_shared"] == 0
    assert "The parts: train" in (folder / "report.html").read_text(encoding="utf-8")


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
    assert list(head.metadata.refit.parts) == ["train", "validation"] == again["parts"]
    assert head.metadata.refit.rows == split["counts"]["train"] + split["counts"]["validation"] == again["rows"]
    assert head.metadata.temperature == summary["calibration"]["temperature"] > 0
    succeed("search.export", folder, place / "all.hdf5", "--which", "ensemble")
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
    assert summary["refit"]["epochs"] == heads[0]["epochs"]
    assert summary["finalists"]["cost"]["trial_epochs"] == sum(one["repeats"] * one["epochs"] for one in heads)


def test_what_does_not_fit_is_refused_in_one_line_and_nothing_is_changed(tmp_path, searched, store):
    folder, study_file = searched[0], store.with_name("tiny.toml")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    small = build_store(tmp_path / "small.h5", rows=6)
    wider = tmp_path / "wider.toml"
    wider.write_text(ONE_KIND.replace("high = 48", "high = 64"))
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


# --- through the Python door ----------------------------------------------------------------------------------------


def test_trials_are_a_table_of_results_and_parameters(study):
    trials = study.trials()
    assert isinstance(trials, pd.DataFrame)
    assert trials.index.tolist() == list(range(8))
    first = trials.loc[0]
    assert first["is_article"]
    assert trials["is_article"].sum() == 1
    spec = {name: value for name, value in HeadSpec().to_dict().items() if name != "schema"}
    assert {name: first[name] for name in spec} == spec
    completed = trials[trials["state"] == "completed"]
    assert len(completed) == study.summary.completed
    assert completed["value"].max() >= first["value"] > 0.25
    assert (completed["best_epoch"] <= completed["epochs"]).all()
    assert (completed["seconds"] > 0).all()
    assert study.summary.best.value in completed["value"].tolist()


def test_figures_are_the_reports_by_name_and_drawn_once(study):
    figures = study.figures()
    assert {"history", "learning-curves", "what-ended-when", "repeats", "value-and-size", "parameter-dropout"} <= set(
        figures
    )
    history = figures["history"]
    assert sum(len(trace.x or ()) for trace in history.data) >= study.summary.completed
    assert figures["history"] is history
    with pytest.raises(KeyError):
        figures["nonsense"]


def test_the_recommended_head_is_the_one_that_export_writes(study, tmp_path):
    model = study.best_head()
    assert isinstance(model, keras.Model)
    out = study.export(tmp_path / "best.hdf5")
    assert out == tmp_path / "best.hdf5"
    written = read_head(out)
    assert written.metadata.trial == study.summary.best.number
    for mine, theirs in zip(model.get_weights(), written.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    together = read_head(study.export(tmp_path / "all.hdf5", which="ensemble"))
    assert together.metadata.trials == tuple(study.summary.ensemble.trials)
    with pytest.raises(InputError, match="--which: expected no --trial beside it, found --trial 0"):
        study.export(tmp_path / "x.hdf5", which="ensemble", trial=0)
    with pytest.raises(InputError, match="--trial: expected one of those kept"):
        study.export(tmp_path / "x.hdf5", trial=77)


def test_a_study_shows_itself_and_writes_its_report(study):
    assert study.report().read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    text, page = repr(study), study._repr_html_()
    for said in ("tiny, finished", "8 of 8", study.verdict):
        assert said in text
    assert "<table>" in page
    assert "tiny, finished" in page


def test_a_study_can_be_looked_at_while_its_search_holds_it(study):
    with WriterLock(study.folder / STUDY_FILE):
        assert open_study(study.folder).progress == "running"
        assert len(study.trials()) == 8
        with pytest.raises(BottleneckError, match="another process is writing it"):
            run_study(out=study.folder, resume=True, progress=False)
