"""A study in few directions of the channels: what leaves it takes all of them, and scores what was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import invoke, succeed
from conftest import build_store

import features
from features.rows.feed import Feed
from features.store.reader import FeatureStore
from heads.files.head_file import read_head, read_metadata
from heads.metrics.scoring import predict_probabilities
from search.record.results import HeldOutTest
from search.record.study_record import read_record
from search.record.summary import read_summary
from search.review.view import validation_confusions

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
    """``store.h5``, ``small.h5`` compressed from it, a study file, and ``study``, ended, on the small store."""
    folder = tmp_path_factory.mktemp("compressed")
    build_store(folder / "store.h5", rows=240, views=("identity", "flip"), shape=(3, 3, CHANNELS))
    (folder / "tiny.toml").write_text(STUDY)
    features.compress(folder / "store.h5", folder / "small.h5", channels=KEPT, progress=False)
    search(folder, "study", "--features", folder / "small.h5")
    return folder


def search(world: Path, name: str, *options: object) -> str:
    common = ("--study", world / "tiny.toml", "--out", world / name, "--finalists", 2, "--repeats", 2)
    return succeed("search.run", *common, *options).err


def evaluated(head: Path, store: Path, part: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(succeed("heads.evaluate", head, store, "--part", part, "--json").out)
    return told


def on_test(folder: Path) -> HeldOutTest:
    summary = read_summary(folder)
    assert summary is not None
    assert summary.test is not None
    return summary.test


def require_heads_of_all_channels(world: Path, name: str) -> None:
    """Every file of a study is of the store that holds all channels, and scores there what the study recorded."""
    folder, source = world / name, FeatureStore(world / "store.h5")
    paths = sorted((folder / "heads").glob("*.hdf5"))
    assert {path.name.partition("-")[0] for path in paths} >= {"refit"}
    for path in paths:
        metadata = read_metadata(path)
        assert metadata.feature_shape == source.header.feature_shape
        assert metadata.store_fingerprint == source.fingerprint
        assert metadata.projection
        if metadata.value is not None:
            told = evaluated(path, source.path, "validation")
            assert abs(told["accuracy"] - metadata.value) <= 1.01 / told["rows"]
    tested = on_test(folder)
    exports = {"best": ((), tested), "ensemble": (("--ensemble",), tested.ensemble)}
    for kind, (options, recorded) in exports.items():
        out = world / f"{name}-{kind}.hdf5"
        succeed("search.export", folder, out, *options)
        told = evaluated(out, source.path, "test")
        assert recorded is not None
        assert (told["rows"], told["patients"]) == (recorded.rows, recorded.patients)
        assert abs(told["accuracy"] - recorded.accuracy) <= 1.01 / told["rows"]
        assert told["loss"] == pytest.approx(recorded.loss, abs=2e-3)


def test_heads_of_a_study_on_a_compressed_store_are_of_all_channels(world):
    require_heads_of_all_channels(world, "study")


def test_an_exported_head_is_scored_on_the_compressed_store_too(world):
    succeed("search.export", world / "study", world / "scored.hdf5")
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
    common = ("--study", world / "tiny.toml", "--trials", 1, "--epochs", 1, "--finalists", 0)
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
