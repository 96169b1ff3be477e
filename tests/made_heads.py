"""Heads whose weights are drawn, without a training, and features to show them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from heads.model.build import build_head
from heads.model.spec import HeadSpec

SHAPE = (2, 2, 8)
PLAIN = HeadSpec(conv_width=16)


def with_random_weights(model: Any, seed: int, *, spread: float = 0.7) -> Any:
    """Gives a model weights of either sign, moving statistics included, whose variances are positive."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        arrays = [generator.normal(0, spread, array.shape) for array in layer.get_weights()]
        if type(layer).__name__ == "BatchNormalization":
            arrays[-1] = generator.uniform(0.5, 2, arrays[-1].shape)  # the moving variance
        layer.set_weights(arrays)
    return model


def random_head(spec: HeadSpec = PLAIN, seed: int = 1, *, shape: tuple[int, int, int] = SHAPE, classes: int = 4) -> Any:
    """A head whose every weight is a random number."""
    return with_random_weights(build_head(spec, shape, classes, seed=seed), seed)


def some_features(rows: int = 7, shape: tuple[int, int, int] = SHAPE, dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(7).uniform(0, 2, (rows, *shape)).astype(dtype)


def predicted(model: Any, features: np.ndarray | None = None) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(some_features() if features is None else features, training=False))
