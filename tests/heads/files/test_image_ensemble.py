"""Heads on several backbones as one model from image to class, in which each backbone stands once."""

from __future__ import annotations

from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import build_backbone
from heads.files.checked_write import write_checked
from heads.files.formats import format_of, probabilities_of
from heads.files.head_file import Head
from heads.files.image_model import Branch, build_image_ensemble, build_image_model, ensemble_metadata
from heads.files.metadata import IMAGE_MODEL, HeadMetadata, file_attributes
from heads.files.refitted import Refitted
from heads.model.build import build_head
from heads.model.spec import HeadSpec

pytestmark = pytest.mark.usefixtures("drawn_once")

CLASSES = ("A", "B", "C")


def branch(size: int, widths: tuple[int, ...], *, seed: int) -> Branch:
    """A small network at a size, and heads of some widths on it."""
    told = {"preprocessing": "backbone", "weights": f"random:{seed}", "alpha": 0.25, "image_size": size}
    backbone = build_backbone(BackboneSpec(name="mobilenet", **told))
    generator, heads = np.random.default_rng(seed), []
    for number, width in enumerate(widths):
        spec = HeadSpec(conv_width=width)
        model = build_head(spec, backbone.feature_shape, len(CLASSES))
        model.set_weights([generator.uniform(0.01, 0.3, array.shape) for array in model.get_weights()])
        about = {"classes": CLASSES, "spec": spec, "trial": 10 * seed + number, "versions": {}}
        kind = {"feature_shape": backbone.feature_shape, "backbone": "mobilenet", "image_size": size, "alpha": 0.25}
        heads.append(Head(model, HeadMetadata(**kind, weights=f"random:{seed}", preprocessing="backbone", **about)))
    return Branch(backbone, heads)


@pytest.fixture(scope="module")
def branches() -> list[Branch]:
    return [branch(64, (16,), seed=1), branch(32, (16, 32), seed=2)]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.float32)


def test_it_is_the_mean_of_its_heads_each_at_its_size(branches, images):
    smaller = np.asarray(keras.ops.image.resize(images, (32, 32), interpolation="bilinear", antialias=True))
    apart = [
        probabilities_of(build_image_model(one.backbone, head), seen)
        for one, seen in zip(branches, (images, smaller), strict=True)
        for head in one.heads
    ]
    assert np.ptp(apart, axis=0).max() > 0.01
    found = probabilities_of(build_image_ensemble(branches), images)
    np.testing.assert_allclose(found, np.mean(apart, axis=0), atol=1e-5)


@pytest.mark.parametrize("name", ["whole.hdf5", "whole.keras"])
def test_it_leaves_as_a_plain_keras_file(branches, images, name, tmp_path):
    model, metadata = build_image_ensemble(branches), ensemble_metadata(branches, 1.5)
    out = tmp_path / name
    write_checked(out, format_of(out), model, file_attributes(metadata, IMAGE_MODEL), images)
    loaded = keras.saving.load_model(out, compile=False)
    assert loaded.count_params() == model.count_params()
    kinds = [type(layer).__name__ for layer in loaded.layers]
    assert kinds.count("Resizing") == 1
    assert sum(layer.name.startswith("backbone_") for layer in loaded.layers) == 2
    if out.suffix == ".hdf5":
        with h5py.File(out) as file:
            assert file.attrs["trials"].tolist() == [10, 20, 21]
            assert (file.attrs["temperature"], file.attrs["image_size"]) == (1.5, 64)


def test_what_holds_of_one_member_alone_is_not_said_of_the_whole(branches):
    whole = ensemble_metadata(
        [replaced(branches[0], layer="conv_pw_6_relu", backbone_sha256="0" * 64), branches[1]], 1.5
    )
    assert (whole.alpha, whole.preprocessing, whole.classes) == (0.25, "backbone", CLASSES)
    assert (whole.layer, whole.backbone_sha256, whole.feature_shape) == ("", "", (0, 0, 0))
    other = replaced(branches[1], alpha=1.0, preprocessing="tf", intensity="8 bits", own={"function": "a.py:head"})
    whole = ensemble_metadata([other, branches[0]], None)
    assert (whole.alpha, whole.preprocessing, whole.intensity, whole.own) == (None, "unknown", "unknown", None)


def test_it_says_on_what_any_member_was_trained_again(branches):
    assert ensemble_metadata(branches, None).refit is None
    again = replaced(branches[1], refit=Refitted(parts=("train", "validation"), rows=9, epochs=3))
    assert ensemble_metadata([branches[0], again], None).refit == Refitted(parts=("train", "validation"))


def replaced(branch: Branch, **changes) -> Branch:
    """The branch of a network that says something else of itself."""
    return Branch(branch.backbone, [replace(head, metadata=replace(head.metadata, **changes)) for head in branch.heads])


def test_one_backbone_and_one_head_are_what_they_are_alone(branches, images):
    alone = branches[0]
    expected = probabilities_of(build_image_model(alone.backbone, alone.heads[0]), images)
    np.testing.assert_allclose(probabilities_of(build_image_ensemble([alone]), images), expected, atol=1e-6)
