"""Backbones and heads as one plain Keras model, from image to class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import keras

from features.extraction.backbones import Backbone
from features.store.kind import FeatureKind
from heads.files.head_file import Head
from heads.files.metadata import WHERE_ALIKE, HeadMetadata, shared, trials_of
from heads.files.refitted import refit_of_any


@dataclass(frozen=True)
class Branch:
    """A backbone, and the heads on its features.

    Attributes:
        backbone: The backbone.
        heads: At least one, none of them an average itself.
    """

    backbone: Backbone
    heads: Sequence[Head]


def build_image_model(backbone: Backbone, head: Head) -> keras.Model:
    """Joins a backbone and the head that was trained on its features.

    Returns:
        Uncompiled model of built-in layers from RGB images (batch, size, size, 3), float32 of 0 to 255, to class
        probabilities (batch, classes). It sees an image as it is, without other views, and rounds no features: its
        probabilities differ from those on a float16 store by that much.
    """
    pixels = backbone.image_model()
    return keras.Model(pixels.inputs[0], head.model(pixels.outputs[0]), name="image_to_class")


def build_image_ensemble(branches: Sequence[Branch]) -> keras.Model:
    """Joins backbones and heads on them into one model that gives the mean of the heads' class probabilities.

    Each backbone stands in it once. Images are of the size of the largest one; for the others the model makes them
    smaller, bilinear and antialiased as an extraction does, but from these and not from the original.

    Args:
        branches: At least one; all heads are for the same classes.

    Returns:
        As ``build_image_model``, at the largest size.
    """
    side = largest_side(branches)
    images = keras.Input((side, side, 3), dtype="float32", name="images")
    found = []
    for number, branch in enumerate(branches):
        own, size = branch.backbone.image_model(), branch.backbone.image_size
        seen = images
        if size != side:
            name = f"images_{number}_of_{size}"
            seen = keras.layers.Resizing(size, size, interpolation="bilinear", antialias=True, name=name)(images)
        features = keras.Model(own.inputs[0], own.outputs[0], name=f"backbone_{number}_{own.name}")(seen)
        for index, head in enumerate(branch.heads):
            model = keras.Model(head.model.inputs[0], head.model.outputs[0], name=f"head_{number}_{index}")
            found.append(model(features))
    called = keras.layers.Average(name="average")(found) if len(found) > 1 else found[0]
    return keras.Model(images, called, name="image_to_class")


def largest_side(branches: Sequence[Branch]) -> int:
    """Returns the side in pixels of the images that an ensemble takes."""
    return max(branch.backbone.image_size for branch in branches)


def ensemble_metadata(branches: Sequence[Branch], temperature: float | None) -> HeadMetadata:
    """Returns what the file of an ensemble says of itself: what holds of all members, and what they take.

    What they differ in is unknown of the whole: of features of different shapes, the shape is (0, 0, 0).

    Args:
        branches: As for ``build_image_ensemble``.
        temperature: What calibrates the average.
    """
    members = [head.metadata for branch in branches for head in branch.heads]
    told = {
        "backbone": ", ".join(branch.backbone.spec.title for branch in branches),
        "image_size": largest_side(branches),
        "weights": ", ".join(dict.fromkeys(branch.backbone.weights_name for branch in branches)),
        "views": tuple(dict.fromkeys(view for one in members for view in one.views)),
        "dtype": ", ".join(dict.fromkeys(one.dtype for one in members)),
        "trials": trials_of(members),
        "refit": refit_of_any(one.refit for one in members),
        "temperature": temperature,
        "versions": members[0].versions,
    }
    names = ("classes", *(field.name for field in fields(FeatureKind)), *WHERE_ALIKE)
    return HeadMetadata(**({"feature_shape": (0, 0, 0)} | shared(members, names) | told))
