"""From images to one model of two sizes: extracted in one go, searched together, exported with their backbone."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from made_pictures import KINDS, draw
from PIL import Image

from features import extract_several
from features.runtime.errors import InputError
from heads.files.formats import probabilities_of
from heads.files.head_file import read_head
from search import run_study
from search.record.head_files import refit_path_of
from search.trials.notes import TrialNotes

pytestmark = pytest.mark.slow
FILE = """
name = "sizes"
[run]
trials = 6
epochs = 2
pruner = "none"
batch_size = 16
[space]
conv_width = { low = 16, high = 32, step = 16 }
"""


@pytest.fixture
def images(tmp_path) -> Path:
    """Pictures of three kinds, each of a patient of its own."""
    generator = np.random.default_rng(0)
    for kind in KINDS:
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(14):
            draw(kind, generator, (64, 64)).save(tmp_path / "images" / kind / f"{kind}-{number}-1.png")
    return tmp_path / "images"


def test_heads_on_two_sizes_leave_as_one_model_with_their_backbone(images, tmp_path):
    (tmp_path / "sizes.toml").write_text(FILE)
    how = {"backbone": "mobilenet", "weights": "random:3", "alpha": 0.25, "preprocessing": "unit", "progress": False}
    stores = extract_several(images, tmp_path / "stores", image_size=[32, 64], **how)
    told = {
        "study": tmp_path / "sizes.toml",
        "out": tmp_path / "study",
        "folds": 0,
        "validation_fraction": 0.4,
        "test_fraction": 0,
        "progress": False,
    }
    study = run_study(stores, finalists=6, repeats=2, **told)
    store_of = {trial.number: TrialNotes.of(trial).store for trial in study.record.trials}
    members = study.summary.ensemble.trials
    assert set(store_of.values()) == set(stores) == {"mobilenet-32", "mobilenet-64"}
    assert {store_of[number] for number in members} == set(stores)
    with pytest.raises(InputError, match=r"mobilenet at .*pixels.*which only --with-backbone brings together"):
        study.export(tmp_path / "without.keras", which="ensemble")
    out = study.export(tmp_path / "whole.keras", which="ensemble", with_backbone=True)
    model = keras.saving.load_model(out, compile=False)
    assert model.input_shape == (None, 64, 64, 3)
    assert sum(layer.name.startswith("backbone_") for layer in model.layers) == 2

    store = stores["mobilenet-64"]
    paths = [images / path for path in store.header.paths[:6]]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) for path in paths])
    features = {name: one.take(np.arange(6), 0).astype(np.float32) for name, one in stores.items()}
    each = [
        probabilities_of(read_head(refit_path_of(study.folder, number)).model, features[store_of[number]])
        for number in members
    ]
    # Drawn weights see the roundings of an image that was made smaller before; exactly: test_image_ensemble.
    np.testing.assert_allclose(probabilities_of(model, pixels), np.mean(each, axis=0), atol=0.1)
