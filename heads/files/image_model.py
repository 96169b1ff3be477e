"""Backbone and head as one plain Keras model, from image to class."""

from __future__ import annotations

from pathlib import Path

import keras

from features.extraction.backbones import Backbone
from heads.files.head_file import Head, save_model
from heads.files.metadata import IMAGE_MODEL, SCHEMA, metadata_attributes


def build_image_model(backbone: Backbone, head: Head) -> keras.Model:
    """Joins a backbone and the head that was trained on its features.

    Returns:
        Uncompiled model of built-in layers from RGB images (batch, size, size, 3), float32 of 0 to 255, to class
        probabilities (batch, classes). It sees an image as it is, without other views, and rounds no features: its
        probabilities differ from those on a float16 store by that much.
    """
    pixels = backbone.image_model()
    return keras.Model(pixels.inputs[0], head.model(pixels.outputs[0]), name="image_to_class")


def save_image_model(path: Path, backbone: Backbone, head: Head) -> None:
    """Writes ``build_image_model`` to a file, with the head's metadata as attributes beside it.

    Raises:
        InputError: The name ends neither in .hdf5 nor in .h5.
        BottleneckError: The file cannot be written.
    """
    attributes = {"kind": IMAGE_MODEL, "schema": SCHEMA, **metadata_attributes(head.metadata)}
    save_model(path, build_image_model(backbone, head), attributes)
