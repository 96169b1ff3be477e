"""The frozen backbones: preprocessing as keras.applications has it, weights of all kinds, exported models."""

from __future__ import annotations

import importlib
import tempfile
import urllib.error
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from features.extraction.applications import BACKBONES
from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import Backbone, build_backbone
from features.extraction.preprocessing import Preprocessing
from features.runtime.errors import BottleneckError, InputError

SIZES = {"inception_v3": 96, "xception": 80}
REQUIRED = ("inception_v3", "mobilenet", "mobilenet_v2", "resnet50", "efficientnet_b0", "xception", "densenet121")
ONE_OF_EACH_MODE = ("mobilenet", "resnet50", "densenet121", "efficientnet_b0")
MOBILENET = "mobilenet_0.25_224_notop.h5"
MOBILENET_V2 = "mobilenet_v2_1.0_224_notop.weights.h5"


SLOW = pytest.mark.slow


def marked(names: Iterable[str]) -> list[Any]:
    """All but the small backbones are slow to build."""
    return [name if name.startswith("mobilenet") else pytest.param(name, marks=SLOW) for name in names]


@cache
def built(name: str) -> Backbone:
    return build_backbone(BackboneSpec(name=name, weights="random:3", image_size=SIZES.get(name, 64)))


def scans(size: int, *, count: int = 6, seed: int = 0) -> np.ndarray:
    """Images with bright bands on black and some grain, (count, size, size, 3) uint8."""
    generator = np.random.default_rng(seed)
    rows = np.arange(size)[:, None] / size
    waves = np.sin(
        generator.uniform(2, 9, (count, 1, 1)) * np.arange(size) / size + generator.uniform(0, 6, (count, 1, 1))
    )
    bands = np.exp(-(((rows - 0.5 - 0.2 * waves) / generator.uniform(0.03, 0.2, (count, 1, 1))) ** 2))
    grey = 200 * bands + generator.gamma(2, 10, bands.shape)
    return np.clip(np.stack([grey, 0.9 * grey, grey + 10], axis=-1), 0, 255).astype(np.uint8)


def preprocess_input(name: str):
    factory = getattr(keras.applications, BACKBONES[name].factory)
    return importlib.import_module(factory.__module__).preprocess_input


@pytest.mark.parametrize("name", marked(REQUIRED))
def test_random_features_are_neither_dead_nor_exploding_and_fit_float16(name):
    backbone = built(name)
    features = backbone.features(scans(backbone.image_size))
    assert features.shape == (6, *backbone.feature_shape)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert np.abs(features).max() < 3000
    assert 0.01 < features.std() < 300
    live = features.reshape(-1, features.shape[-1]).std(axis=0) > 1e-3
    assert live.mean() > 0.5
    between_images = features.std(axis=0).mean()
    assert between_images > 0.05 * features.std()


@pytest.mark.parametrize("name", marked(ONE_OF_EACH_MODE))
def test_the_program_preprocesses_as_keras_does(name):
    backbone = built(name)
    images = scans(backbone.image_size)
    prepared = preprocess_input(name)(images.astype(np.float32))
    expected = keras.ops.convert_to_numpy(backbone.model(prepared, training=False))
    close(backbone.features(images), expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_entry_of_the_table_has_the_preprocessing_of_its_factory(name):
    if BACKBONES[name].mode == "none":
        images = scans(4).astype(np.float32)
        assert np.array_equal(preprocess_input(name)(images.copy()), images)
        return
    ours = Preprocessing.of(BackboneSpec(name=name, weights="random"), None)
    images = scans(8).astype(np.float32)
    np.testing.assert_allclose(ours.on_array(images), preprocess_input(name)(images.copy()), rtol=1e-5, atol=1e-5)


def test_unit_preprocessing_is_the_articles():
    backbone = build_backbone(
        BackboneSpec(name="mobilenet", alpha=0.25, weights="random", image_size=32, preprocessing="unit")
    )
    images = scans(32)
    expected = keras.ops.convert_to_numpy(backbone.model(images.astype(np.float32) / 255, training=False))
    close(backbone.features(images), expected)


@pytest.mark.parametrize(
    ("name", "ending"),
    [("mobilenet", ".hdf5"), *(pytest.param(name, ".keras", marks=SLOW) for name in ("resnet50", "efficientnet_b0"))],
)
def test_the_image_model_is_plain_keras_and_agrees_with_features(name, ending, tmp_path):
    backbone = built(name)
    images = scans(backbone.image_size)
    path = tmp_path / f"images{ending}"
    backbone.image_model().save(path)
    loaded = keras.models.load_model(path, compile=False)
    close(keras.ops.convert_to_numpy(loaded(images.astype(np.float32), training=False)), backbone.features(images))
    assert not loaded.trainable_variables


def test_a_row_does_not_depend_on_its_neighbours_nor_on_its_place():
    backbone = built("mobilenet_v2")
    images = scans(backbone.image_size, count=8)
    features = backbone.features(images)
    others = images.copy()
    others[1:] = 0
    assert np.array_equal(backbone.features(others)[0], features[0])
    close(backbone.features(images[::-1])[::-1], features)


def test_xla_is_asked_for_on_jax_only():
    assert built("mobilenet")._program.jit_compile is (keras.backend.backend() == "jax")


@pytest.mark.slow
def test_random_weights_follow_their_seed_alone():
    def weights(text: str) -> Backbone:
        np.random.default_rng().random()
        keras.utils.set_random_seed(int(np.random.default_rng().integers(1000)))
        return build_backbone(BackboneSpec(name="mobilenet_v2", alpha=0.35, weights=text, image_size=32))

    first, again, default, other = (weights(text) for text in ("random:0", "random:0", "random", "random:1"))
    assert first.weights_sha256 == again.weights_sha256 == default.weights_sha256 != other.weights_sha256
    assert default.weights_name == "random:0"
    assert other.weights_name == "random:1"
    assert np.array_equal(first.features(scans(32)), again.features(scans(32)))


@pytest.mark.parametrize(
    ("file", "options", "shape"),
    [
        (MOBILENET, {"name": "mobilenet", "alpha": 0.25}, (3, 3, 256)),
        (MOBILENET_V2, {"name": "mobilenet_v2"}, (3, 3, 1280)),
    ],
)
def test_weight_files_load_whatever_they_are_called(file, options, shape, weights_folder, tmp_path):
    backbone = build_backbone(BackboneSpec(weights=str(weights_folder / file), image_size=96, **options))
    assert backbone.feature_shape == shape
    assert backbone.weights_name == file
    features = backbone.features(scans(96))
    assert features.std() > 0.05
    renamed = tmp_path / ("weights.hdf5" if file.endswith(".weights.h5") else "mine.weights.h5")
    renamed.symlink_to(weights_folder / file)
    same = build_backbone(BackboneSpec(weights=str(renamed), image_size=96, **options))
    assert same.weights_sha256 == backbone.weights_sha256


@pytest.mark.slow
def test_a_file_acts_as_the_download_does(monkeypatch, tmp_path):
    """EfficientNet's download comes with a factor that Keras builds into the network for it, and for no file."""
    path = tmp_path / "efficientnetb0_notop.h5"
    source = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    normalization = next(layer for layer in source.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    keras.src.legacy.saving.legacy_h5_format.save_model_to_hdf5(source, path, include_optimizer=False)
    module = importlib.import_module(keras.applications.EfficientNetB0.__module__)
    monkeypatch.setattr(module.file_utils, "get_file", lambda *_, **__: str(path))
    images = scans(32)
    downloaded = build_backbone(BackboneSpec(name="efficientnet_b0", image_size=32)).features(images)
    from_file = build_backbone(BackboneSpec(name="efficientnet_b0", image_size=32, weights=str(path))).features(images)
    close(from_file, downloaded)


def test_weights_that_do_not_fit_are_refused_in_one_line(weights_folder, tmp_path):
    text, hdf5, nothing = tmp_path / "text.h5", tmp_path / "other.h5", tmp_path / "empty.h5"
    text.write_text("no weights")
    nothing.touch()
    with h5py.File(hdf5, "w") as file:
        file["numbers"] = np.arange(3)
    broken = tmp_path / "nan.weights.h5"
    model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.25)
    model.set_weights([np.full_like(array, np.nan) for array in model.get_weights()])
    model.save_weights(broken)
    for weights, options, found in (
        (text, {"name": "mobilenet"}, "a file that is no HDF5"),
        (nothing, {"name": "mobilenet"}, "an empty file"),
        (hdf5, {"name": "mobilenet"}, "others"),
        (broken, {"name": "mobilenet", "alpha": 0.25}, "weights that are not finite"),
        (weights_folder / MOBILENET, {"name": "mobilenet"}, "others"),
        (weights_folder / MOBILENET, {"name": "mobilenet_v2"}, "others"),
        (weights_folder / MOBILENET_V2, {"name": "mobilenet"}, "others"),
        (weights_folder / MOBILENET_V2, {"name": "mobilenet_v2", "alpha": 0.5}, "others"),
    ):
        with pytest.raises(InputError) as caught:
            build_backbone(BackboneSpec(weights=str(weights), image_size=32, **options))
        line = str(caught.value)
        assert line.startswith(f"{weights}: expected the weights of {options['name']}"), line
        assert f"found {found}" in line
        assert "\n" not in line


def test_without_a_folder_for_temporary_files_sound_weights_are_not_refused(tmp_path, monkeypatch):
    model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.25)
    model.save_weights(tmp_path / "mine.weights.h5")
    path = (tmp_path / "mine.weights.h5").rename(tmp_path / "mine.h5")  # which Keras would take for its older format
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(BottleneckError, match=r"^/.*gone: cannot be written: No such file"):
        build_backbone(BackboneSpec(name="mobilenet", alpha=0.25, weights=str(path), image_size=32))


def test_no_download_says_how_to_pass_a_file(monkeypatch):
    attempts = []

    def unreachable(*arguments):
        attempts.append(arguments)
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(keras.src.utils.file_utils, "urlretrieve", unreachable)
    with pytest.raises(InputError, match=r"--weights: .*mobilenet.* pass a file with --weights FILE\.h5") as caught:
        build_backbone(BackboneSpec(name="mobilenet", alpha=0.75, image_size=160))
    assert len(attempts) == 1
    assert "https://" in str(caught.value)


def test_a_host_that_does_not_answer_is_given_up_and_the_timeout_put_back(monkeypatch):
    import socket

    seen = []

    def silent(*_):
        seen.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(keras.src.utils.file_utils, "urlretrieve", silent)
    with pytest.raises(InputError, match="timed out"):
        build_backbone(BackboneSpec(name="mobilenet", alpha=0.75, image_size=160))
    assert seen[0] is not None
    assert seen[0] <= 30
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"name": "resnet"}, "--backbone"),
        ({"weights": "missing.h5"}, "--weights"),
        ({"weights": "random:"}, "--weights"),
        ({"weights": "random:-1"}, "--weights"),
        ({"image_size": 74}, "--image-size"),
        ({"image_size": 5000}, "--image-size"),
        ({"image_size": 0}, "--image-size"),
        ({"alpha": 0.5}, "--alpha"),
        ({"name": "mobilenet", "alpha": 0.3}, "--alpha"),
        ({"name": "mobilenet", "alpha": 0.0, "weights": "random"}, "--alpha"),
        ({"name": "mobilenet", "alpha": float("nan"), "weights": "random"}, "--alpha"),
        ({"preprocessing": "inception"}, "--preprocessing"),
        ({"name": "efficientnet_b0", "preprocessing": "unit"}, "--preprocessing"),
    ],
)
def test_a_spec_that_cannot_be_is_refused_with_its_option(options, option):
    with pytest.raises(InputError, match=option):
        BackboneSpec(**options)


def test_too_large_a_batch_says_what_to_do(monkeypatch):
    class ResourceExhaustedError(Exception):
        """As TensorFlow's."""

    def full(_):
        raise ResourceExhaustedError("OOM when allocating tensor")

    backbone = built("mobilenet")
    monkeypatch.setattr(backbone._program, "predict_on_batch", full)
    with pytest.raises(BottleneckError, match="use a smaller --batch-size"):
        backbone.features(scans(64))


def close(found: np.ndarray, expected: np.ndarray) -> None:
    scale = np.abs(expected).max()
    assert scale > 0
    difference = np.abs(found - expected).max() / scale
    assert difference < 1e-4, difference


def test_the_folder_of_weights_is_not_written_to(weights_folder: Path):
    before = {path.name: path.stat().st_mtime_ns for path in weights_folder.iterdir()}
    build_backbone(BackboneSpec(name="mobilenet", alpha=0.25, weights=str(weights_folder / MOBILENET), image_size=32))
    assert {path.name: path.stat().st_mtime_ns for path in weights_folder.iterdir()} == before
