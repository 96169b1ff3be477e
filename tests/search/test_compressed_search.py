"""A study in few directions of the channels: what leaves it takes all of them, and scores what was recorded."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import invoke, succeed
from conftest import build_store
from tiny_study import table

import features
import search.setup.channels as channels_module
from features.rows.feed import Feed
from features.store.projection import Projection, load_projection, save_projection
from features.store.reader import FeatureStore
from heads.files.head_file import read_head, read_metadata
from heads.metrics.scoring import predict_probabilities
from search.record.results import HeldOutTest
from search.record.study_record import read_record
from search.record.summary import Summary, read_summary
from search.review.confusions import validation_confusions
from search.running import run_study
from search.setup import projection
from search.setup.projection import StudyProjection
from search.training.stages import Stage

pytestmark = pytest.mark.slow

STUDY = """
name = "tiny"
[run]
trials = 3
epochs = 2
batch_size = 32
[space]
conv_width = { low = 16, high = 32, step = 16 }
batch_norm = [true, false]
pooling = ["flatten", "average"]
"""
KEPT, CHANNELS = 6, 16


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """``store.h5``, ``small.h5`` compressed from it, a study file; ``study``, ended, on the small store, and
    ``without``, ended, with --channels on the store."""
    folder = tmp_path_factory.mktemp("compressed")
    build_store(folder / "store.h5", rows=240, views=("identity", "flip"), shape=(3, 3, CHANNELS))
    (folder / "tiny.toml").write_text(STUDY)
    features.compress(folder / "store.h5", folder / "small.h5", channels=KEPT, progress=False)
    search(folder, "study", "--features", folder / "small.h5", "--finalists", 2, "--repeats", 2, "--folds", 0)
    search(folder, "without", "--features", folder / "store.h5", "--channels", KEPT, "--finalists", 0, "--folds", 0)
    return folder


def search(world: Path, name: str, *options: object) -> str:
    return succeed("search.run", "--study", world / "tiny.toml", "--out", world / name, *options).err


def evaluated(head: Path, store: Path, part: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(succeed("heads.evaluate", head, store, "--part", part, "--json").out)
    return told


def on_test(folder: Path) -> HeldOutTest:
    test = summary_of(folder).test
    assert test is not None
    return test


def summary_of(folder: Path) -> Summary:
    summary = read_summary(folder)
    assert summary is not None
    return summary


def require_heads_of_all_channels(world: Path, name: str) -> None:
    """Every file of a study is of the store that holds all channels, and scores there what the study recorded."""
    folder, source = world / name, FeatureStore(world / "store.h5")
    paths = sorted((folder / "heads").glob("*.hdf5"))
    summary = summary_of(folder)
    compared = summary.recommendation.contenders if summary.recommendation else ()
    kinds = {"trial": True, "refit": summary.refit is not None, "copy": any(one.copies > 1 for one in compared)}
    assert {path.name.partition("-")[0] for path in paths} == {kind for kind, there in kinds.items() if there}
    for path in paths:
        metadata = read_metadata(path)
        assert metadata.feature_shape == source.header.feature_shape
        assert metadata.store_fingerprint == source.fingerprint
        assert metadata.projection
        if metadata.value is not None:
            told = evaluated(path, source.path, "validation")
            assert abs(told["accuracy"] - metadata.value) <= 1.01 / told["rows"]
    tested = on_test(folder)
    exports = {
        "winner": (("--which", "winner"), tested),
        "ensemble": (("--which", "ensemble"), tested.ensemble),
        "recommended": ((), tested.recommended or tested),
    }
    for kind, (options, recorded) in exports.items():
        if recorded is None:
            continue
        out = world / f"{name}-{kind}.hdf5"
        succeed("search.export", folder, out, *options)
        told = evaluated(out, source.path, "test")
        assert (told["rows"], told["patients"]) == (recorded.rows, recorded.patients)
        assert abs(told["accuracy"] - recorded.accuracy) <= 1.01 / told["rows"]
        assert told["loss"] == pytest.approx(recorded.loss, abs=2e-3)


@pytest.mark.parametrize("name", ["study", "without"])
def test_heads_that_leave_a_study_are_of_all_channels(world, name):
    require_heads_of_all_channels(world, name)
    assert bool(on_test(world / name).ensemble) == (name == "study")


def test_without_a_second_file_a_study_finds_what_it_does_with_one(world):
    assert table(world / "without") == table(world / "study")
    kept = load_projection(world / "without" / "projection.h5")
    assert kept == FeatureStore(world / "small.h5").header.projection
    told = json.loads((world / "without" / "study.json").read_text())
    assert (told["channels"], told["projection"]["basis"]) == (str(KEPT), kept.digest)
    assert told["stores"]["features"]["fingerprint"] == FeatureStore(world / "store.h5").fingerprint
    (note,) = [note for note in summary_of(world / "without").notes if "directions" in note]
    assert note.startswith(f"trained in {KEPT} directions of {CHANNELS} channels")
    assert note in html.unescape((world / "without" / "report.html").read_text())


def test_near_identical_images_are_looked_for_in_all_channels(world):
    audits = [json.loads((world / name / "audit.json").read_text()) for name in ("without", "study")]
    assert audits[0]["rows"] == audits[1]["rows"]
    assert audits[0]["threshold"] != audits[1]["threshold"]  # of other features


def test_a_study_one_at_a_time_goes_on_in_the_very_same_directions(world, monkeypatch):
    whole, broken = world / "whole", world / "broken"

    def on_stage(stage):
        if stage == Stage.SEARCH:  # the study as it stands when its first trials begin
            shutil.copytree(whole, broken, ignore=shutil.ignore_patterns("*.lock"))

    few = {"trials": 2, "epochs": 1, "finalists": 0, "progress": False}
    run_study(world / "store.h5", channels=5, engine="solo", out=whole, on_stage=on_stage, **few)
    monkeypatch.setattr(projection, "principal_directions", None)  # the directions are those that are there
    succeed("search.run", "--out", broken, "--resume")
    assert table(broken, "heads") == table(whole, "heads")
    assert (broken / "projection.h5").read_bytes() == (whole / "projection.h5").read_bytes()
    heads = [world / name / "heads" for name in (whole.name, broken.name)]
    names = [sorted(path.name for path in folder.glob("*.hdf5")) for folder in heads]
    assert names[0] == names[1] != []
    for name in names[0]:
        first, second = (read_head(folder / name) for folder in heads)
        assert first.metadata.feature_shape == (3, 3, CHANNELS)
        for mine, theirs in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("damage", ["gone", "other", "another store's", "cut"])
def test_other_directions_than_the_studys_are_refused(world, tmp_path, damage):
    folder = tmp_path / "study"
    shutil.copytree(world / "without", folder)
    path = folder / "projection.h5"
    kept = load_projection(path)
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        basis = kept.basis if damage == "another store's" else np.ascontiguousarray(kept.basis[:, ::-1])
        save_projection(path, Projection(basis, "ab" * 32 if damage == "another store's" else kept.compressed_from))
    said = invoke("search.run", "--out", folder, "--resume", "--trials", 5)
    assert (said.status, len(said.err.splitlines())) == (2, 1), said.err
    assert "projection.h5" in said.err


def test_channels_that_do_not_fit_are_refused_before_anything_is_made(world):
    refused = {
        ("store.h5", CHANNELS + 1): f"--channels: expected 1 to {CHANNELS}",
        ("small.h5", 3): "compressed already",
        ("small.h5", "auto"): "compressed already",
        ("store.h5", "few"): "--channels: expected a number of at least 1, or auto, found few",
        ("store.h5", 0): "--channels: expected a number of at least 1, or auto, found 0",
    }
    for (store, channels), expected in refused.items():
        said = invoke("search.run", "--features", world / store, "--channels", channels, "--out", world / "new")
        assert (said.status, len(said.err.splitlines())) == (2, 1), said.err
        assert expected in said.err
        assert not (world / "new").exists()
    said = invoke("search.run", "--out", world / "without", "--resume", "--channels", KEPT - 1)
    assert (said.status, len(said.err.splitlines())) == (2, 1), said.err
    assert f"channels: expected {KEPT}, found {KEPT - 1}" in said.err


def test_auto_goes_with_folds_and_with_a_resume_and_is_reported(world, monkeypatch):
    monkeypatch.setattr(channels_module, "CANDIDATES", (CHANNELS - 1, 99))
    monkeypatch.setattr(channels_module, "TRIED_STEPS", 1)
    monkeypatch.setattr(channels_module, "paired_difference", lambda *told: (0.01, 0.02))
    common = ("--trials", 1, "--epochs", 1, "--finalists", 0, "--folds", 2)
    search(world, "auto", *common, "--features", world / "store.h5", "--channels", "auto")
    told = json.loads((world / "auto" / "study.json").read_text())
    found = StudyProjection.model_validate(told["projection"])
    tried, whole = found.measured
    assert told["channels"] == "auto"
    assert (tried.channels, whole.channels, found.channels) == (CHANNELS - 1, CHANNELS, CHANNELS - 1)
    assert min(tried.accuracy, whole.accuracy) > 0.3
    assert load_projection(world / "auto" / "projection.h5").digest == found.basis
    (note,) = [note for note in summary_of(world / "auto").notes if "auto took" in note]
    page = (world / "auto" / "report.html").read_text()
    assert note in html.unescape(re.sub("<[^>]+>", "", page))  # options are marked up, so that they do not break
    monkeypatch.setattr(projection, "principal_directions", None)  # the directions are those that are there
    search(world, "auto", "--resume", "--trials", 2, "--channels", "auto")
    assert json.loads((world / "auto" / "study.json").read_text())["projection"] == told["projection"]
    head = read_metadata(next((world / "auto" / "heads").glob("refit-*.hdf5")))
    assert (head.feature_shape, head.projection) == ((3, 3, CHANNELS), found.basis)


def test_an_exported_head_is_scored_on_the_compressed_store_too(world):
    succeed("search.export", world / "study", world / "scored.hdf5", "--which", "winner")
    there, here = (evaluated(world / "scored.hdf5", world / name, "test") for name in ("store.h5", "small.h5"))
    assert here["loss"] == pytest.approx(there["loss"], abs=2e-3)
    recorded = on_test(world / "study")
    assert here["accuracy"] == pytest.approx(recorded.accuracy, abs=1e-12)
    assert here["loss"] == pytest.approx(recorded.loss, abs=1e-5)  # the very features that it was scored on
    said = succeed("heads.evaluate", world / "scored.hdf5", world / "small.h5")
    assert "includes the rows that the head was trained on" in said.err
    features.compress(world / "store.h5", world / "other.h5", channels=KEPT - 1, progress=False)
    said = succeed("heads.evaluate", world / "scored.hdf5", world / "other.h5", "--report", world / "report")
    assert f"holds {KEPT - 1} of {CHANNELS} channels, other directions" in said.err
    assert (world / "report" / "index.html").is_file()


def test_the_dashboard_scores_kept_heads_on_the_compressed_store(world):
    seen = list(validation_confusions(read_record(world / "study")))
    assert seen
    for trial, counts, _ in seen:
        assert np.trace(counts) / np.sum(counts) == pytest.approx(trial.value)


def test_a_part_may_have_a_store_of_all_channels_and_none_of_another_basis(world):
    build_store(world / "test.h5", rows=48, views=("identity", "flip"), shape=(3, 3, CHANNELS), seed=5)
    features.compress(world / "test.h5", world / "test-small.h5", channels=KEPT, progress=False)
    common = ("--study", world / "tiny.toml", "--trials", 1, "--epochs", 1, "--finalists", 0, "--folds", 0)
    succeed("search.run", *common, "--features", world / "small.h5", "--test", world / "test.h5", "--out", world / "a")
    tested = on_test(world / "a")
    head = world / "a" / "heads" / f"trial-{tested.trial}.hdf5"
    feed = Feed(source := FeatureStore(world / "test.h5"), source.usable, memory_bytes=0)
    right = predict_probabilities(read_head(head).model, feed).argmax(axis=1) == feed.labels
    assert abs(right.mean() - tested.accuracy) <= 1.01 / tested.rows
    refused = {
        "small.h5": ("test-small.h5", "all channels"),
        "store.h5": ("test-small.h5", "projection: expected all channels"),
    }
    for store, (test, expected) in refused.items():
        stores = ("--features", world / store, "--test", world / test)
        said = invoke("search.run", *common, *stores, "--out", world / "b")
        assert (said.status, len(said.err.splitlines())) == (2, 1), said.err
        assert expected in said.err
        assert not (world / "b").exists()
