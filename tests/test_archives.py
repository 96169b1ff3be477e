"""What was written by released versions (tests/archives/README.md) is read by the code of today."""

from __future__ import annotations

import html
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from commands import succeed
from conftest import build_features, build_header
from tiny_study import read, table

from features.rows.feed import Feed
from features.store.reader import FeatureStore
from features.store.schema import RowState
from features.store.writer import StoreWriter
from heads.files.head_file import read_head, read_metadata
from heads.files.metadata import metadata_attributes
from heads.files.refitted import Refitted
from heads.metrics.scoring import predict_probabilities
from search.record.storage import load_study
from search.setup.config import StudyConfig
from search.training.snapshot import read_snapshot

ARCHIVES = Path(__file__).with_name("archives")
STORE = ARCHIVES / "store.h5"
FINGERPRINT = "0d12bc0c42a392afedcf074bfcc052b0994c8fc560140869fc7509e797d44d80"
OF_STORE: dict[str, Any] = {
    "rows": 72,
    "views": ("identity", "flip"),
    "classes": ("A", "B", "C"),
    "batch_size": 12,
}
"""How ``store.h5`` was made, by ``build_store``."""
CLOSE = {"rel": 1e-3, "abs": 1e-5}
"""Another processor rounds otherwise. The study's objective is the loss, which moves little by that."""


class TestStore:
    def test_holds_the_same_and_has_no_problem(self):
        store = FeatureStore(STORE)
        assert store.fingerprint == FINGERPRINT == store.header.fingerprint
        assert store.header == build_header(**OF_STORE)
        expected = build_features(store.header)
        expected[7] = 0
        np.testing.assert_array_equal(store.features, expected)
        assert np.flatnonzero(store.done != RowState.DONE).tolist() == [7]
        told = json.loads(succeed("features.info", STORE, "--json").out)
        assert (told["schema"], told["complete"], told["skipped"], told["problems"]) == (1, True, 1, [])

    def test_an_unfinished_one_is_finished_to_the_same_bytes_as_ever(self, tmp_path):
        path = Path(shutil.copy(ARCHIVES / "unfinished.h5", tmp_path))
        told = json.loads(succeed("features.info", path, "--json").out)
        assert (told["done"], told["pending"], told["complete"], told["problems"]) == (12, 60, False, [])
        states = FeatureStore(STORE).done
        features = np.asarray(FeatureStore(STORE).features)
        with StoreWriter(path, build_header(**OF_STORE)) as writer:
            for batch in writer.pending():
                assert batch.start >= 12
                writer.write(batch, features[batch.start : batch.stop], states[batch.start : batch.stop])
            writer.finish()
        own = np.asarray(FeatureStore(path).features)
        np.testing.assert_array_equal(own[12:], features[12:])
        assert FeatureStore(path).fingerprint == FINGERPRINT

    def test_the_articles_layout_converts(self, tmp_path):
        succeed("features.convert", ARCHIVES / "article.h5", tmp_path / "store.h5", "--classes", "A,B,C")
        made, source = FeatureStore(tmp_path / "store.h5"), FeatureStore(STORE)
        np.testing.assert_array_equal(made.features[:, 0], source.features[source.usable, 0])
        np.testing.assert_array_equal(made.labels, source.labels[source.usable])
        succeed("features.convert", STORE, tmp_path / "article.h5", "--batch-size", 30)
        with h5py.File(ARCHIVES / "article.h5") as old, h5py.File(tmp_path / "article.h5") as new:
            assert set(old) == set(new)
            for name in old:
                np.testing.assert_array_equal(old[name][()], new[name][()])


@pytest.mark.parametrize("name", ["head", "refit", "ensemble"])
def test_a_head_says_what_it_said(name):
    store = FeatureStore(STORE)
    head = read_head(ARCHIVES / f"{name}.hdf5")
    said = predict_probabilities(head.model, Feed(store, store.usable, memory_bytes=10**8))
    np.testing.assert_allclose(said, np.load(ARCHIVES / f"{name}.npy"), rtol=1e-4, atol=1e-6)
    metadata = read_metadata(ARCHIVES / f"{name}.hdf5")
    assert (metadata.classes, metadata.views, metadata.feature_shape) == (
        ("A", "B", "C"),
        ("identity", "flip"),
        (2, 2, 8),
    )
    assert (metadata.backbone, metadata.alpha, metadata.store_fingerprint) == ("mobilenet", 0.25, FINGERPRINT)
    summary = read(ARCHIVES / "finished")
    if name == "head":
        assert (metadata.trial, metadata.refit) == (summary["best"]["number"], None)
        assert metadata.value == pytest.approx(summary["best"]["value"])
    elif name == "refit":
        assert (metadata.trial, metadata.value) == (summary["refit"]["trial"], None)
        assert metadata.refit.rows == summary["refit"]["rows"]
        with h5py.File(ARCHIVES / "refit.hdf5") as file:
            assert metadata_attributes(metadata)["refit"] == file.attrs["refit"]
        assert metadata.temperature == summary["calibration"]["temperature"]
    else:
        assert metadata.trials == tuple(summary["ensemble"]["trials"])
        assert metadata.temperature == summary["ensemble"]["temperature"]


class TestStudy:
    def test_a_finished_one_is_reported(self, tmp_path):
        said = succeed("search.report", ARCHIVES / "finished", "--out", tmp_path / "report.html")
        assert said.out == f"{tmp_path / 'report.html'}: old, 6 trials, finished\n"
        page = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
        assert read(ARCHIVES / "finished")["verdict"] in page
        assert "Each run was judged by its best epoch" in page
        assert "its last one counts" not in page

    @pytest.mark.parametrize(("name", "options"), [("refit", ()), ("ensemble", ("--which", "ensemble"))])
    def test_a_finished_one_is_exported_as_ever(self, name, options, tmp_path):
        succeed("search.export", ARCHIVES / "finished", tmp_path / "out.hdf5", *options)
        expected = read_metadata(ARCHIVES / f"{name}.hdf5")
        if name == "ensemble":  # which did not say that its members were trained again
            expected = replace(expected, refit=Refitted(parts=("train", "validation")))
        assert read_metadata(tmp_path / "out.hdf5") == expected

    def test_a_finished_ones_table_is_that_of_its_summary(self):
        trials, summary = table(ARCHIVES / "finished", "old"), read(ARCHIVES / "finished")
        assert len(trials) == 6
        assert min(value for _, _, value, _, _ in trials if value is not None) == summary["best"]["value"]

    @pytest.mark.parametrize("name", ["stopped", "stopped-repeats/finalists"])
    def test_a_stopped_ones_snapshot_is_read(self, name):
        folder = ARCHIVES / name
        saved = read_snapshot(folder)
        assert saved is not None
        assert 0 < saved.journal_bytes <= (folder / "journal.log").stat().st_size
        running = [trial.number for trial in study_of(folder).get_trials() if not trial.state.is_finished()]
        assert sorted(saved.trial_numbers) == running
        assert running

    @pytest.mark.slow
    def test_a_stopped_one_goes_on_from_where_it_was(self, tmp_path):
        """Its epochs were scored in all views, now they are in one: what had ended stays as it was, the rest ends."""
        folder, plain = Path(shutil.copytree(ARCHIVES / "stopped", tmp_path / "study")), ARCHIVES / "finished"
        before = study_of(folder).get_trials()
        succeed("search.run", "--features", STORE, "--out", folder, "--resume")
        mine, old = table(folder, "old"), table(plain, "old")
        assert [trial[0] for trial in mine] == [trial[0] for trial in old]
        for number, trial in enumerate(before):  # those that were asked for
            assert mine[number][3] == old[number][3] == trial.params
            if trial.state.is_finished():
                assert mine[number] == old[number] == (number, trial.state, *trial.values, *old[number][3:])
        assert any(trial.state.is_finished() for trial in before)
        # Heads went on from their weights: of those that completed in both, the value moves with the best epoch alone.
        completed = [pair for pair in zip(mine, old, strict=True) if all(len(trial[4]) == 24 for trial in pair)]
        best = [[min(trial[4], key=trial[4].__getitem__) for trial in pair] for pair in completed]
        assert sum(one == other for one, other in best) > sum(trial.state.is_finished() for trial in before)
        for (one, other), (best_one, best_other) in zip(completed, best, strict=True):
            assert one[2] == pytest.approx(other[2], **CLOSE if best_one == best_other else {"rel": 0.01})
        assert read(folder)["test"]["uses"] == 1

    @pytest.mark.slow
    def test_one_stopped_among_its_repeats_has_them_anew_and_ends_where_the_undisturbed_one_did(self, tmp_path):
        """How long repeats train was decided otherwise then, so these are others."""
        folder, plain = Path(shutil.copytree(ARCHIVES / "stopped-repeats", tmp_path / "study")), ARCHIVES / "finished"
        succeed("search.run", "--features", STORE, "--out", folder, "--resume")
        for mine, old in zip(table(folder, "old"), table(plain, "old"), strict=True):
            assert mine[:2] == old[:2]
            assert mine[2] == pytest.approx(old[2], **CLOSE)
            assert mine[3] == old[3]
            assert mine[4] == pytest.approx(old[4], **CLOSE)
        summaries = read(folder), read(plain)
        for one, other in zip(*(summary["finalists"]["heads"] for summary in summaries), strict=True):
            assert one["trial"] == other["trial"]
            # Each of theirs picked its best epoch; now that of the trial is decided beforehand.
            if set(other["best_epochs"]) == {one["epochs"]}:
                assert one["losses"] == pytest.approx(other["losses"], **CLOSE)
        assert summaries[0]["finalists"]["heads"][0]["losses"] == pytest.approx(
            summaries[1]["finalists"]["heads"][0]["losses"], **CLOSE
        )
        tested = [summary["test"] for summary in summaries]
        # Not the loss, which had a temperature at its bound: one is held back now where all validation rows are right.
        held_back, at_bound = (summary["calibration"]["temperature"] for summary in summaries)
        assert 2 * at_bound < held_back < 1
        assert [test["confusion"] for test in tested] == [tested[0]["confusion"]] * 2
        # Of the winner: the verdict is on what is recommended, which nothing was then.
        differences = [test["difference"] for test in tested]
        assert differences[0]["value"] == pytest.approx(differences[1]["value"], **CLOSE)
        assert "nothing was shown to be better than the article's head" in summaries[0]["verdict"]


def study_of(folder: Path) -> Any:
    return load_study(folder, StudyConfig.read(folder).name, None)
