"""Random weights for a backbone that still tell images apart: seeded, with calibrated batch norm."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.preprocessing import Preprocessing

_CALIBRATION_IMAGES = 32
_CALIBRATION_PIXELS = 2**19
"""Pixels that go through the network at once: about 1 GB of activations."""


def randomise(model: Any, spec: BackboneSpec, seed: int) -> None:
    """Draws He-normal kernels from NumPy's generator (no global state) and sets the moving statistics.

    With statistics of 0 and 1 a random network in inference mode would shrink its activations layer by layer to
    nothing, or, on pixels of 0 to 255, blow them up; here every BatchNormalization takes its statistics from one
    seeded batch of noise that was preprocessed as images are.
    """
    generator = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if len(variable.shape) >= 2:
            depthwise = "depthwise" in variable.path
            inputs = int(np.prod(variable.shape[:2] if depthwise else variable.shape[:-1]))
            drawn = generator.standard_normal(tuple(variable.shape), np.float32)
            variable.assign(drawn * np.float32(np.sqrt(2 / inputs)))
    _calibrate(model, Preprocessing.of(spec, model).on_array(_noise(generator, spec.size)))


def _noise(generator: np.random.Generator, size: int) -> npt.NDArray[np.float64]:
    """Noise with the same energy in every octave, as photographs have it: (images, size, size, 3), 0 to 255."""
    images = np.tile(generator.standard_normal((_CALIBRATION_IMAGES, 1, 1, 3)), (1, size, size, 1))
    octaves = int(np.log2(size))
    for cells in 2 ** np.arange(octaves + 1):
        coarse = generator.standard_normal((_CALIBRATION_IMAGES, cells + 1, cells + 1, 3))
        at = np.arange(size) * cells / size
        low, part = at.astype(int), at % 1
        rows = coarse[:, low] * (1 - part)[:, None, None] + coarse[:, low + 1] * part[:, None, None]
        images += rows[:, :, low] * (1 - part)[:, None] + rows[:, :, low + 1] * part[:, None]
    return np.asarray(127.5 * (1 + np.tanh(images / np.sqrt(octaves))))


def _calibrate(model: Any, images: npt.NDArray[np.float32]) -> None:
    """Sets all moving statistics to their averages over the images.

    The images go through in parts, because Keras keeps every activation of a call in memory.
    """
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    drops = [(layer, layer.rate) for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    momenta = [layer.momentum for layer in norms]
    for layer, _ in drops:
        layer.rate = 0.0
    parts = -(-images[..., 0].size // _CALIBRATION_PIXELS)
    for number, part in enumerate(np.array_split(images, min(parts, len(images)))):
        for layer in norms:
            layer.momentum = number / (number + 1)
        model(part, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    for layer, rate in drops:
        layer.rate = rate
