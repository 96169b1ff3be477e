"""Networks from files: they give what they gave, are cut where they are told, and their output becomes a map."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from commands import invoke, succeed
from limited_files import largest_file
from made_networks import SIZE, edited, flat, grey, nested, saved, tokens
from made_pictures import draw

import features
from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import Backbone, build_backbone
from features.extraction.network import as_map, cut, layers_of
from features.extraction.preprocessing import Preprocessing
from features.runtime.errors import BottleneckError, InputError
from features.store.reader import FeatureStore

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def images(count: int = 3, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def array(tensor: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def built(path: Path, **options: Any) -> Backbone:
    return build_backbone(BackboneSpec(name=str(path), **options))


@cache
def mobilenet() -> Backbone:
    return build_backbone(BackboneSpec(name="mobilenet", alpha=0.25, weights="random:1", image_size=SIZE))


@pytest.mark.parametrize("ending", [".keras", ".h5", ".hdf5"])
def test_a_network_gives_what_it_gave_when_it_was_saved(ending, tmp_path):
    model = flat()
    backbone = built(saved(tmp_path / f"net{ending}", model), preprocessing="none")
    expected = array(model(images().astype(np.float32), training=False))
    assert backbone.feature_shape == expected.shape[1:] == (3, 3, 8)
    np.testing.assert_allclose(backbone.features(images()), expected, rtol=1e-5)
    assert not backbone.model.trainable_variables
    assert backbone.remark == ""


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_weights_that_come_from_a_file_or_numpy_are_not_drawn_before(ending, tmp_path, request):
    def hashes() -> list[str]:
        of_numpy = BackboneSpec(name="mobilenet", alpha=0.25, weights="random:1", image_size=SIZE)
        return [built(path, preprocessing="none").weights_sha256, build_backbone(of_numpy).weights_sha256]

    path = saved(tmp_path / f"net{ending}", flat())
    expected = hashes()
    request.getfixturevalue("nothing_to_draw")
    assert hashes() == expected


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_without_room_for_temporary_files_a_sound_one_is_not_refused(ending, tmp_path, monkeypatch):
    path = saved(tmp_path / f"net{ending}", flat())
    if ending == ".keras":  # another is read by a link
        with largest_file(1000), pytest.raises(BottleneckError, match=r"^/.*: larger than a file may be") as told:
            built(path, preprocessing="none")
        assert "net" not in str(told.value)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(BottleneckError, match="gone: cannot be written: No such file"):
        built(path, preprocessing="none")


def test_the_file_of_an_application_gives_the_very_same_features(tmp_path):
    named = mobilenet()
    path = saved(tmp_path / "mine.keras", named.model)
    whole = built(path, preprocessing="tf")
    assert np.array_equal(whole.features(images()), named.features(images()))
    assert whole.weights_sha256 == named.weights_sha256
    kind = whole.spec.kind(whole.feature_shape, whole.weights_sha256)
    assert (kind.backbone, kind.weights, kind.preprocessing, kind.layer) == ("mine.keras", "mine.keras", "tf", "")


@pytest.mark.slow
def test_an_application_and_its_file_are_cut_alike(tmp_path):
    named, layer = mobilenet(), "conv_pw_5_relu"
    path = saved(tmp_path / "mine.keras", named.model)
    first = built(path, layer=layer, preprocessing="tf")
    second = build_backbone(replace(named.spec, layer=layer))
    expected = keras.Model(named.model.inputs[0], named.model.get_layer(layer).output)
    prepared = images().astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(
        first.features(images()), array(expected(prepared, training=False)), rtol=1e-4, atol=1e-5
    )
    assert np.array_equal(first.features(images()), second.features(images()))
    assert {first.weights_sha256, second.weights_sha256} == {named.weights_sha256}  # of the network, wherever it is cut


def test_a_network_within_a_network_is_cut_by_its_layers_names(tmp_path):
    model = nested()
    path = saved(tmp_path / "net.keras", model)
    names = [layer.name for layer in features.network_layers(path)]
    assert names[1:] == ["body", "body/low", "body/high", "pooled", "top"]
    body = model.get_layer("body")
    low = array(body.layers[0](images(size=40).astype(np.float32) / 255))
    for layer in ("low", "body/low"):
        backbone = built(path, image_size=40, layer=layer)
        np.testing.assert_allclose(backbone.features(images(size=40)), low, rtol=1e-4, atol=1e-6)
    whole = built(path, image_size=40, layer="body")
    assert whole.feature_shape == (4, 4, 8)
    vector = built(path, image_size=40, layer="pooled")
    np.testing.assert_allclose(
        vector.features(images(size=40))[:, 0, 0], whole.features(images(size=40)).mean(axis=(1, 2)), rtol=1e-4
    )
    assert vector.remark == "the output of pooled is a vector: a map of 1 x 1"


@pytest.mark.parametrize(("before", "said"), [(5, ", without the first 5"), (1, ", without the first 1"), (0, "")])
def test_tokens_are_a_map_of_their_patches_in_order(before, said, tmp_path):
    backbone = built(saved(tmp_path / "net.keras", tokens(before)))
    assert backbone.feature_shape == (4, 4, 3)
    assert f"{16 + before} tokens: a map of 4 x 4{said}" in backbone.remark
    means = images().reshape(3, 4, 8, 4, 8, 3).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(backbone.features(images()), means, rtol=1e-4)


def test_grey_networks_see_grey(tmp_path):
    model = grey()
    path = saved(tmp_path / "net.keras", model)
    seen = images().astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    for told, scaled in {"none": seen, "unit": seen / 255, "tf": seen / 127.5 - 1}.items():
        backbone = built(path, preprocessing=told)
        expected = array(model(scaled[..., None], training=False))
        np.testing.assert_allclose(backbone.features(images())[:, 0, 0], expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match=r"--preprocessing: expected none, unit or tf for the grey images"):
        built(path, preprocessing="caffe")


@pytest.mark.parametrize(("mode", "module"), [("tf", "mobilenet"), ("torch", "densenet"), ("caffe", "resnet")])
def test_preprocessing_can_be_named(mode, module, tmp_path):
    model = flat()
    spec = BackboneSpec(name=str(saved(tmp_path / "net.keras", model)), preprocessing=mode)
    expected = getattr(keras.applications, module).preprocess_input(images().astype(np.float32))
    np.testing.assert_allclose(Preprocessing.of(spec, model).on_array(images()), expected, rtol=1e-4, atol=1e-4)


def test_a_layer_that_cannot_be_is_refused_with_what_is_near(tmp_path):
    path = saved(tmp_path / "net.keras", flat())
    with pytest.raises(InputError, match=r"--layer: expected one of 3 layers, found frist; near it: first"):
        built(path, preprocessing="none", layer="frist")
    with pytest.raises(InputError, match="--list-layers shows all"):
        built(path, preprocessing="none", layer="zzz")

    first, second = keras.layers.Conv2D(3, 1, name="shared"), keras.Input((SIZE, SIZE, 3))
    twice = keras.Model(second, first(first(second)))
    with pytest.raises(InputError, match="--layer: expected a layer that is passed once, as shared, found 2 times"):
        cut(twice, "shared")
    inner = [keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 1, name="a")], name=one) for one in "pq"]
    both = keras.Sequential([keras.Input((8, 8, 3)), *inner])
    assert [layer.name for layer in layers_of(both)] == ["p", "p/a", "q", "q/a"]
    with pytest.raises(InputError, match="--layer: expected one of p/a, q/a, found a"):
        cut(both, "a")
    assert cut(both, "q/a").output_shape == (None, 8, 8, 3)


def test_an_output_that_is_no_map_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--layer: expected a map .* found \(2, 3, 4, 5\) of it"):
        as_map(keras.KerasTensor((None, 2, 3, 4, 5)), "it")
    with pytest.raises(InputError, match=r"expected a map .*, a vector, or tokens of a square grid, found \(118, 8\)"):
        as_map(keras.KerasTensor((None, 118, 8)), "it")
    with pytest.raises(InputError, match="as there are several outputs"):
        as_map([keras.KerasTensor((None, 4)), keras.KerasTensor((None, 4))], "it")


def test_the_image_model_holds_layers_of_keras_alone(tmp_path):
    backbone = built(saved(tmp_path / "net.keras", tokens()))
    path = saved(tmp_path / "images.keras", backbone.image_model())
    again = keras.saving.load_model(path)
    np.testing.assert_allclose(array(again(images().astype(np.float32))), backbone.features(images()), rtol=1e-5)


def test_the_command_extracts_lists_and_goes_on(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(6):
        (tmp_path / "images" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        draw("dark", generator).save(tmp_path / "images" / "ab"[number % 2] / f"{number}.png")
    net, store = saved(tmp_path / "net.keras", flat()), tmp_path / "s.h5"
    told = ("features.extract", tmp_path / "images", store, "--backbone", net, "--layer", "first")
    said = invoke(*told)
    assert said.status == 2
    assert "--preprocessing: expected what " in said.err
    succeed(*told, "--preprocessing", "unit")
    header = FeatureStore(store).header
    assert (header.backbone, header.layer, header.preprocessing) == ("net.keras", "first", "unit")
    assert header.backbone_sha256 == BackboneSpec(name=str(net), preprocessing="unit").identity[0]
    assert header.feature_shape == (8, 8, 6)
    assert "layer first, sha256" in header.texts()["backbone"]
    succeed(*told, "--preprocessing", "unit")
    assert "layer: expected 'last', found 'first'" in invoke(*told, "--preprocessing", "unit", "--layer", "last").err
    edited(net, net, lambda config: None)  # the same network in other bytes
    assert "backbone_sha256: expected " in invoke(*told, "--preprocessing", "unit").err

    lines = succeed("features.extract", "--backbone", net, "--list-layers").out.splitlines()
    assert lines == ["first  Conv2D  8 x 8 x 6", "normal  BatchNormalization  8 x 8 x 6", "last  Conv2D  3 x 3 x 8"]
    listed = succeed("features.extract", "--backbone", "mobilenet", "--alpha", 0.25, "--list-layers").out
    assert "conv_pw_13_relu  ReLU  7 x 7 x 256" in listed
    assert invoke("features.extract", "--backbone", "nothing", "--list-layers").status == 2
