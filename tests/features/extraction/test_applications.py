"""What is read of keras.applications' source, held against what Keras does."""

from __future__ import annotations

import importlib
from typing import Any

import keras
import numpy as np
import pytest

from features.extraction.applications import BACKBONES, Architecture
from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import build_backbone, list_layers
from features.runtime.errors import InputError

SOME = {
    "inception_v3": Architecture("InceptionV3", 299, 75, "tf"),
    "xception": Architecture("Xception", 299, 71, "tf"),
    "mobilenet": Architecture("MobileNet", 224, 32, "tf", (0.25, 0.5, 0.75, 1.0)),
    "mobilenet_v2": Architecture("MobileNetV2", 224, 32, "tf", (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)),
    "resnet50": Architecture("ResNet50", 224, 32, "caffe"),
    "resnet101": Architecture("ResNet101", 224, 32, "caffe"),
    "resnet50_v2": Architecture("ResNet50V2", 224, 32, "tf"),
    "densenet121": Architecture("DenseNet121", 224, 32, "torch"),
    "densenet169": Architecture("DenseNet169", 224, 32, "torch"),
    "vgg16": Architecture("VGG16", 224, 32, "caffe"),
    "vgg19": Architecture("VGG19", 224, 32, "caffe"),
    "efficientnet_b0": Architecture("EfficientNetB0", 224, 32, "none"),
    "efficientnet_b1": Architecture("EfficientNetB1", 240, 32, "none"),
    "efficientnet_b2": Architecture("EfficientNetB2", 260, 32, "none"),
    "efficientnet_b3": Architecture("EfficientNetB3", 300, 32, "none"),
    "efficientnet_v2_s": Architecture("EfficientNetV2S", 384, 32, "none"),
    "mobilenet_v3_small": Architecture("MobileNetV3Small", 224, 32, "none", (0.75, 1.0)),
    "nasnet_large": Architecture("NASNetLarge", 331, 32, "tf"),
    "convnext_xlarge": Architecture("ConvNeXtXLarge", 224, 32, "none"),
    "inception_resnet_v2": Architecture("InceptionResNetV2", 299, 75, "tf"),
}
"""Stores have these names: the first fifteen are older than the others."""
RUN = (
    *("mobilenet_v3_small", "mobilenet_v3_large", "nasnet_mobile", "convnext_tiny", "efficientnet_v2_b0"),
    *("resnet50_v2", "vgg16", "densenet121"),
)
"""One of each family at least, which images go through; the others are built."""


class _AskedError(Exception):
    """Carries what a factory asks ``obtain_input_shape`` for."""


@pytest.mark.parametrize("name", SOME)
def test_names_and_sizes_of_stores_that_exist_stay(name):
    assert BACKBONES[name] == SOME[name]


def test_every_network_of_keras_has_a_name_and_no_other():
    factories = {name for name in dir(keras.applications) if name[0].isupper()}
    assert {architecture.factory for architecture in BACKBONES.values()} == factories
    assert len(BACKBONES) == len(factories) > 30


@pytest.mark.parametrize("name", [name for name in BACKBONES if not name.startswith("mobilenet_v3")])
def test_sizes_are_those_that_keras_asks_for(name, monkeypatch):
    def asked(given: Any, *, default_size: int, min_size: int, **_: Any) -> None:
        raise _AskedError(default_size, min_size)

    factory = getattr(keras.applications, BACKBONES[name].factory)
    module = importlib.import_module(factory.__module__)
    monkeypatch.setattr(module.imagenet_utils, "obtain_input_shape", asked)
    with pytest.raises(_AskedError) as caught:
        factory(include_top=False, weights=None)
    assert caught.value.args == (BACKBONES[name].image_size, BACKBONES[name].smallest)


def test_the_one_that_does_not_ask_says_the_least_size():
    with pytest.raises(ValueError, match="at least 32x32"):
        keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(31, 31, 3))


@pytest.mark.parametrize(("told", "meant"), [("mobilenetv2", "mobilenet_v2"), ("resnet_50", "resnet50")])
def test_near_names_are_shown(told, meant):
    with pytest.raises(InputError, match=f"--backbone: expected one of .*, or a file .* found {told}; is .*{meant}"):
        BackboneSpec(name=told)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_each_is_built_and_one_of_each_family_tells_images_apart(name):
    if name not in RUN:
        *_, last = list_layers(name, image_size=BACKBONES[name].smallest)
        assert len(last.shape) == 3
        return
    size = max(64, BACKBONES[name].smallest)
    backbone = build_backbone(BackboneSpec(name=name, weights="random:3", image_size=size))
    generator = np.random.default_rng(0)
    images = np.clip(generator.normal(generator.uniform(40, 200, (4, 1, 1, 1)), 30, (4, size, size, 3)), 0, 255)
    features = backbone.features(images.astype(np.uint8))
    assert features.shape == (4, *backbone.feature_shape)
    assert np.isfinite(features.astype(np.float16)).all()
    assert features.std(axis=0).mean() > 0.02 * features.std() > 0
