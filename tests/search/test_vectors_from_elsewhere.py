"""Vectors that another program made, with parts: from the array to predictions of new ones, by three commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import succeed

CLASSES = np.array(["ANA", "BOB", "CLU"])


def vectors(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, 24) of three kinds that lie apart, and their labels."""
    labels = np.arange(rows) // 3 % 3
    centres = np.random.default_rng(0).normal(size=(3, 24))
    noise = np.random.default_rng(seed).normal(0, 0.3, (rows, 24))
    return np.abs(centres[labels] + noise).astype(np.float32), labels


@pytest.mark.slow
def test_from_an_npz_to_predictions(tmp_path):
    features, labels = vectors(180, seed=1)
    patients = np.arange(180) // 3
    parts = np.where(patients < 40, "train", np.where(patients < 50, "val", "test"))
    np.savez(tmp_path / "embeddings.npz", X=features, y=CLASSES[labels], patients=patients, parts=parts)
    converted = succeed("features.convert", tmp_path / "embeddings.npz", tmp_path / "store.h5")
    assert "left out" not in converted.err

    few = ["--trials", 3, "--epochs", 8, "--finalists", 0, "--batch-size", 12]
    searched = succeed("search.run", "--features", tmp_path / "store.h5", "--out", tmp_path / "study", *few)
    assert "train, validation, test as given" in searched.err
    told = json.loads((tmp_path / "study" / "study.json").read_text())
    assert told["split"]["counts"] == {"train": 120, "validation": 30, "test": 30}
    assert "pooling" not in {name for name, value in told["space"].items() if isinstance(value, list)}
    succeed("search.export", tmp_path / "study", tmp_path / "best.hdf5")
    evaluated = succeed("heads.evaluate", tmp_path / "best.hdf5", tmp_path / "store.h5", "--part", "test", "--json")
    assert json.loads(evaluated.out)["rows"] == 30

    fresh, expected = vectors(30, seed=2)
    np.savez(tmp_path / "new.npz", X=fresh, y=CLASSES[expected])
    succeed("features.convert", tmp_path / "new.npz", tmp_path / "new.h5")
    predicted = succeed("heads.predict", tmp_path / "best.hdf5", tmp_path / "new.h5", "--json")
    called = [entry["class"] for entry in json.loads(predicted.out)]
    assert np.mean(np.array(called) == CLASSES[expected]) > 0.8
