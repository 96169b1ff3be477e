"""Preprocessing as part of the compiled program: a multiply-add per channel, in built-in layers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.extraction.backbone_spec import IMAGENET, OWN, BackboneSpec
from features.runtime.errors import InputError

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue, as keras.applications has them."""
_CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Of blue, green and red."""


_GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey (ITU-R 601), as Pillow has them."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing as x * scale + offset for each channel, after the channels were put in the network's order.

    Attributes:
        scale: (channels,).
        offset: (channels,).
        mixing: (3, channels): how red, green and blue become the network's channels; None where they stay as they are.
    """

    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    mixing: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(cls, spec: BackboneSpec, model: Any) -> Preprocessing:
        """Returns what a backbone needs; ``model`` is its network, whose weights EfficientNet's depends on.

        Raises:
            InputError: Preprocessing for colours, and a network of grey images.
        """
        told = spec.recorded_preprocessing
        if told == OWN and spec.architecture.factory.startswith("EfficientNetB"):
            return cls._efficientnet(spec, model)
        mode = spec.architecture.mode if told == OWN else told
        if spec.file is None or model.inputs[0].shape[-1] == 3:
            return cls._colours(mode)
        if mode in ("torch", "caffe"):
            expected = f"none, unit or tf for the grey images that {spec.title} takes"
            raise InputError("--preprocessing", expected=expected, found=mode)
        colours = cls._colours(mode)
        return cls(colours.scale[:1], colours.offset[:1], np.array(_GREY)[:, None])

    @classmethod
    def _colours(cls, mode: str) -> Preprocessing:
        ones = np.ones(3)
        match mode:
            case "unit":
                return cls(ones / 255, 0 * ones)
            case "tf":
                return cls(ones / 127.5, -ones)
            case "torch":
                return cls(1 / (255 * np.array(_DEVIATION)), -np.array(_MEAN) / _DEVIATION)
            case "caffe":
                return cls(ones, -np.array(_CAFFE_MEAN), np.eye(3)[::-1])
        return cls(ones, 0 * ones)

    @classmethod
    def _efficientnet(cls, spec: BackboneSpec, model: Any) -> Preprocessing:
        """What a file of weights needs that ``weights="imagenet"`` builds into the network.

        There, and only there, Keras divides by sqrt(deviation) after its Normalization layer. Its weights come out of
        a file as they come out of the download, so the same factor k must act: (x / 255 - m) k = (x k + 255 m (1 - k))
        / 255 - m.
        """
        if spec.seed is not None or spec.weights == IMAGENET:
            return cls(np.ones(3), np.zeros(3))
        import keras

        # not by its name, which Keras numbers when it builds a second one
        normalization = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
        mean = np.asarray(normalization.get_weights()[0], np.float64).reshape(3)
        factor = 1 / np.sqrt(_DEVIATION)
        return cls(factor, 255 * mean * (1 - factor))

    def on_array(self, images: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Preprocesses (batch, size, size, 3) outside of a network."""
        ordered = images if self.mixing is None else images @ self.mixing
        return (ordered * self.scale + self.offset).astype(np.float32)

    def apply(self, images: Any) -> Any:
        """Adds plain Keras layers only, so that a saved model needs nothing of ours to load."""
        import keras

        pixels = keras.layers.Rescaling(1.0, name="pixels")(images)  # bytes to floats
        if self.mixing is None:
            scale, offset = self.scale.tolist(), self.offset.tolist()
            return keras.layers.Rescaling(scale, offset, name="preprocessing")(pixels)
        mix = keras.layers.Conv2D(len(self.scale), 1, trainable=False, name="preprocessing")
        preprocessed = mix(pixels)
        kernel = self.mixing * self.scale
        mix.set_weights([kernel[None, None].astype(np.float32), self.offset.astype(np.float32)])
        return preprocessed
