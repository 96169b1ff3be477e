"""Backbone and head as one plain Keras model, from image to class."""

from __future__ import annotations

import keras

from features.extraction.backbones import Backbone
from heads.files.head_file import Head


def build_image_model(backbone: Backbone, head: Head) -> keras.Model:
    """Joins a backbone and the head that was trained on its features.

    Returns:
        Uncompiled model of built-in layers from RGB images (batch, size, size, 3), float32 of 0 to 255, to class
        probabilities (batch, classes). It sees an image as it is, without other views, and rounds no features: its
        probabilities differ from those on a float16 store by that much.
    """
    pixels = backbone.image_model()
    return keras.Model(pixels.inputs[0], head.model(pixels.outputs[0]), name="image_to_class")
