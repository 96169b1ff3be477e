"""Preprocessing as part of the compiled program: a multiply-add per channel, in built-in layers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.extraction.backbone_spec import IMAGENET, BackboneSpec

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, as keras.applications has them."""
_CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Of blue, green and red."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing as x * scale + offset for each channel, after the channels were put in the network's order."""

    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    bgr: bool = False

    @classmethod
    def of(cls, spec: BackboneSpec, model: Any) -> Preprocessing:
        """Returns what a backbone needs; ``model`` is its network, whose weights EfficientNet's depends on."""
        ones = np.ones(3)
        if spec.preprocessing == "unit":
            return cls(ones / 255, 0 * ones)
        match spec.architecture.mode:
            case "tf":
                return cls(ones / 127.5, -ones)
            case "torch":
                return cls(1 / (255 * np.array(_DEVIATION)), -np.array(_MEAN) / _DEVIATION)
            case "caffe":
                return cls(ones, -np.array(_CAFFE_MEAN), bgr=True)
        return cls._efficientnet(spec, model)

    @classmethod
    def _efficientnet(cls, spec: BackboneSpec, model: Any) -> Preprocessing:
        """What a file of weights needs that ``weights="imagenet"`` builds into the network.

        There, and only there, Keras divides by sqrt(deviation) after its Normalization layer. Its weights come out of
        a file as they come out of the download, so the same factor k must act: (x / 255 - m) k = (x k + 255 m (1 - k))
        / 255 - m.
        """
        if spec.seed is not None or spec.weights == IMAGENET:
            return cls(np.ones(3), np.zeros(3))
        import keras  # noqa: PLC0415

        # not by its name, which Keras numbers when it builds a second one
        normalization = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
        mean = np.asarray(normalization.get_weights()[0], np.float64).reshape(3)
        factor = 1 / np.sqrt(_DEVIATION)
        return cls(factor, 255 * mean * (1 - factor))

    def on_array(self, images: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Preprocesses (batch, size, size, 3) outside of a network."""
        ordered = images[..., ::-1] if self.bgr else images
        return (ordered * self.scale + self.offset).astype(np.float32)

    def apply(self, images: Any) -> Any:
        """Adds plain Keras layers only, so that a saved model needs nothing of ours to load."""
        import keras  # noqa: PLC0415

        pixels = keras.layers.Rescaling(1.0, name="pixels")(images)  # bytes to floats
        if not self.bgr:
            scale, offset = self.scale.tolist(), self.offset.tolist()
            return keras.layers.Rescaling(scale, offset, name="preprocessing")(pixels)
        reorder = keras.layers.Conv2D(3, 1, trainable=False, name="preprocessing")
        preprocessed = reorder(pixels)
        kernel = np.eye(3)[::-1] * self.scale  # channel i of the output is channel 2 - i of the input
        reorder.set_weights([kernel[None, None].astype(np.float32), self.offset.astype(np.float32)])
        return preprocessed
