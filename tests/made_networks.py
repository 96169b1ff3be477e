"""Small networks as people have them, in the files that Keras makes of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

SIZE = 32
CLASSES = 3


def flat() -> Any:
    """Keras' own layers from images to a map."""
    keras.utils.set_random_seed(1)
    images = keras.Input((SIZE, SIZE, 3))
    first = keras.layers.Conv2D(6, 3, strides=4, activation="relu", name="first")(images)
    normal = keras.layers.BatchNormalization(name="normal")(first)
    model = keras.Model(images, keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="last")(normal))
    generator = np.random.default_rng(2)
    model.set_weights([generator.uniform(0.1, 0.4, array.shape) for array in model.get_weights()])
    return model


def nested() -> Any:
    """A classifier of images of any size, with its scaling and a network in it, as transfer learning makes them."""
    keras.utils.set_random_seed(2)
    inner = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(6, 3, strides=4, activation="relu", name="low"),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="high"),
        ],
        name="body",
    )
    layers = [keras.layers.Rescaling(1 / 255), inner, keras.layers.GlobalAveragePooling2D(name="pooled")]
    return keras.Sequential([keras.Input((None, None, 3)), *layers, keras.layers.Dense(CLASSES, name="top")])


def tokens(before: int = 5) -> Any:
    """16 patches of 8 x 8 pixels, their mean red in the first channel, behind some tokens of -1."""
    images = keras.Input((SIZE, SIZE, 3))
    scaled = keras.layers.Rescaling(1 / 255)(images)
    patches = keras.layers.Reshape((16, 3))(keras.layers.AveragePooling2D(8)(scaled))
    front = keras.layers.Rescaling(0.0, -1.0)(patches[:, :before])
    return keras.Model(images, keras.layers.Concatenate(axis=1, name="tokens")([front, patches]))


def grey() -> Any:
    """From images of one channel to a vector."""
    keras.utils.set_random_seed(3)
    images = keras.Input((SIZE, SIZE, 1))
    first = keras.layers.Conv2D(5, 3, strides=4, name="first")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D(name="mean")(first))


@keras.saving.register_keras_serializable("Mine")
class Twice(keras.layers.Layer):
    """A class of the user's."""

    def call(self, inputs: Any) -> Any:
        return 2 * inputs


def with_layer(layer: Any) -> Any:
    """A network with some layer in it."""
    images = keras.Input((SIZE, SIZE, 3))
    return keras.Model(images, keras.layers.Conv2D(4, 3, strides=4)(layer(images)))


def saved(path: Path, model: Any) -> Path:
    model.save(path)
    return path


def edited(path: Path, source: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Writes a copy of a .keras file whose configuration somebody has changed."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {"config.json": json.dumps(config).encode()}).items():
            archive.writestr(name, content)
    return path
