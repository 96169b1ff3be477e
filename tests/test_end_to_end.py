"""The whole way on real scans with real weights, by the four commands of the README, as a user types them."""

from __future__ import annotations

import json

import h5py
import keras
import numpy as np
import pytest
from commands import run

from features.rows.feed import Feed
from features.store.reader import FeatureStore
from heads.metrics.scoring import predict_probabilities, score


@pytest.mark.slow
def test_from_scans_to_predictions(tmp_path, oct_folder, weights_folder):
    store, study, best = tmp_path / "scans.h5", tmp_path / "study", tmp_path / "best.hdf5"
    weights = weights_folder / "mobilenet_0.25_224_notop.h5"
    options = ("--backbone", "mobilenet", "--alpha", 0.25, "--weights", weights)
    run("features.extract", oct_folder, store, *options, "--limit", 320)
    told = json.loads(run("features.info", store, "--json").stdout)
    assert told["complete"]
    assert told["rows"] == 320
    assert told["problems"] == []
    assert told["patients"]["rows_known"] == 320

    run("search.run", "--features", store, "--trials", 8, "--epochs", 12, "--folds", 0, "--out", study)
    summary = json.loads((study / "summary.json").read_text())
    assert summary["trials"] == 8
    assert summary["best"]["value"] >= summary["article"]["value"] > 0.5
    assert summary["test"]["accuracy"] > 0.5

    run("search.export", study, best, "--trial", summary["best"]["number"])
    rows = np.array(json.loads((study / "split.json").read_text())["rows"]["validation"])
    opened = FeatureStore(store)
    feed = Feed(opened, rows, memory_bytes=2**30)
    model = keras.models.load_model(best)
    assert score(predict_probabilities(model, feed), feed.labels).accuracy == summary["best"]["value"]
    evaluated = json.loads(run("heads.evaluate", best, store, "--part", "validation", "--json").stdout)
    assert evaluated["accuracy"] == summary["best"]["value"]

    images = [opened.header.paths[row] for row in rows[:6]]
    found = json.loads(
        run("heads.predict", best, *(oct_folder / image for image in images), "--weights", weights, "--json").stdout
    )
    from_store = predict_probabilities(model, Feed(opened, rows[:6], memory_bytes=2**30))
    assert [entry["class"] for entry in found] == [opened.classes[label] for label in from_store.argmax(1)]

    # Those that were trained on all rows but the test's; what is recommended may be one of the others.
    on_test = summary["test"]
    asked = {"winner": on_test, "article": on_test["article"], "recommended": on_test.get("recommended", on_test)}
    for which, told in asked.items():
        run("search.export", study, best, "--which", which)
        tested = json.loads(run("heads.evaluate", best, store, "--part", "test", "--json").stdout)
        assert [tested[name] for name in ("accuracy", "accuracy_interval")] == [
            told[name] for name in ("accuracy", "accuracy_interval")
        ]
    assert summary["test"]["article"]["accuracy"] > 0.5

    whole = tmp_path / "whole.hdf5"
    run("search.export", study, whole, "--with-backbone", "--weights", weights)
    with h5py.File(whole) as file:
        assert file.attrs["kind"] == "image_model"
    assert keras.models.load_model(whole).output_shape == (None, 4)
