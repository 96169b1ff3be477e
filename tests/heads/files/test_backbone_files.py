"""Heads on features of a network from a file: the file is found, known by its hash, and goes along into an export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest
from commands import invoke, succeed
from made_networks import edited, nested, saved
from made_pictures import draw

import features
import heads
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from heads.evaluation.rows import require_same_kind
from heads.files.backbone import NamedBackbone, backbone_spec, rebuild_backbone
from heads.files.checked_write import write_checked
from heads.files.formats import FORMATS
from heads.files.head_file import read_metadata, save_head
from heads.files.image_model import build_image_model
from heads.files.metadata import IMAGE_MODEL, HeadMetadata, file_attributes
from heads.model.build import build_head
from heads.model.spec import HeadSpec

pytestmark = pytest.mark.usefixtures("drawn_once")

SIZE = 40


@dataclass(frozen=True)
class Made:
    network: Path
    image: Path
    store: FeatureStore
    head: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    for kind in ("bright", "dark"):
        (folder / "images" / kind).mkdir(parents=True)
        for number in range(3):
            draw(kind, generator).save(folder / "images" / kind / f"{kind}-{number}.png")
    network = saved(folder / "net.keras", nested())
    store = features.extract(
        folder / "images", folder / "s.h5", backbone=network, layer="body/low", image_size=SIZE, progress=False
    )
    spec = HeadSpec(conv_width=16, batch_norm=False)
    model = build_head(spec, store.header.feature_shape, 2, seed=3)
    head = folder / "head.hdf5"
    save_head(head, model, HeadMetadata.of_store(store.header, store.fingerprint, spec=spec, versions={}))
    yield Made(network, folder / "images" / "dark" / "dark-0.png", store, head)


def test_head_and_store_say_which_file_and_which_layer(made):
    metadata = read_metadata(made.head)
    assert (metadata.backbone, metadata.layer) == ("net.keras", "body/low")
    assert metadata.backbone_sha256 == made.store.header.backbone_sha256 != ""
    assert made.store.fingerprint != replace(made.store.header, layer="body/high").fingerprint
    renamed = replace(made.store.header, backbone="other.keras")
    assert renamed.fingerprint == made.store.fingerprint
    assert list(renamed.differences(made.store.header)) == []


def test_a_prediction_finds_the_file_beside_the_head_and_is_that_of_the_store(made):
    loaded = heads.load_head(made.head)
    row = loaded.predict(made.image, progress=False).iloc[0]
    stored = loaded.predict(made.store, progress=False).set_index("path").loc["dark/dark-0.png"]
    assert row["error"] == ""
    np.testing.assert_allclose([row["bright"], row["dark"]], [stored["bright"], stored["dark"]], atol=1e-4)
    assert loaded.heatmap(made.image).shape == made.store.header.feature_shape[:2]
    assert np.abs(loaded.occlusion(made.image)).max() <= 1
    assert "net.keras, layer body/low, at 40 pixels, preprocessing none" in loaded.describe(heads.PredictOptions())


def test_another_file_is_refused_by_name_and_a_renamed_one_is_told(made, tmp_path, monkeypatch):
    head = tmp_path / "h.hdf5"
    head.write_bytes(made.head.read_bytes())
    said = invoke("heads.predict", head, made.image)
    assert (said.status, said.err.strip()) == (2, "error: --backbone: expected where the file net.keras is, found none")
    missing = invoke("heads.predict", head, made.image, "--backbone", "elsewhere.keras")
    assert "expected where the file net.keras is, found 'elsewhere.keras', no such file" in missing.err
    renamed = tmp_path / "renamed.keras"
    renamed.write_bytes(made.network.read_bytes())
    assert "dark" in succeed("heads.predict", head, made.image, "--backbone", renamed).out

    other = edited(tmp_path / "net.keras", made.network, lambda config: None)
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--backbone", other)):
        said = invoke("heads.predict", head, made.image, *options)
        assert said.status == 2
        assert "net.keras: sha256: expected " in said.err
        assert f", the net.keras that {head} was trained with, found " in said.err
    assert backbone_spec(made.head, read_metadata(made.head)).file.path == made.network  # the right one is beside it
    for options, words in (
        (NamedBackbone(backbone=str(renamed), layer="pooled"), "--layer: expected body/low, as .*, found pooled"),
        (NamedBackbone(backbone=str(renamed), weights="random"), "--weights: expected none: .* is a whole network"),
        (NamedBackbone(backbone=str(renamed), preprocessing="tf"), "--preprocessing: expected none, as "),
    ):
        with pytest.raises(InputError, match=words):
            backbone_spec(head, read_metadata(head), options)


def test_a_store_of_another_file_or_layer_is_refused(made):
    metadata = read_metadata(made.head)
    require_same_kind(made.head, metadata, made.store)
    for change, field in (({"layer": "low"}, "layer"), ({"backbone_sha256": "ab" * 32}, "backbone_sha256")):
        with pytest.raises(InputError, match=f"{field}: expected .* as {made.head}"):
            require_same_kind(made.head, replace(metadata, **change), made.store)
    require_same_kind(made.head, replace(metadata, backbone="unknown", layer="", backbone_sha256=""), made.store)


@pytest.mark.parametrize("form", FORMATS[:2], ids=lambda form: form.title)
def test_it_goes_along_into_a_model_from_image_to_class(made, form, tmp_path):
    head = heads.load_head(made.head).head
    backbone = rebuild_backbone(made.head, head.metadata, backbone_spec(made.head, head.metadata))
    rows = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.float32)
    out = tmp_path / f"out{form.suffixes[0]}"
    model = build_image_model(backbone, head)
    assert write_checked(out, form, model, file_attributes(head.metadata, IMAGE_MODEL), rows) < 1e-5
    kinds = {type(layer).__name__ for layer in keras.saving.load_model(out, compile=False).layers}
    assert kinds == {"InputLayer", "Rescaling", "Functional"}
