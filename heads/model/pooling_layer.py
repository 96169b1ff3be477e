"""A pooling as a Keras layer: one of Keras' own, or a block of them."""

from __future__ import annotations

from typing import Any

import keras

from heads.model.functions import MAPS, POOLINGS


def pooling_layer(pooling: str, feature_shape: tuple[int, int, int], *, name: str = "pooling") -> Any:
    """Returns what pools, from (batch, height, width, channels) to (batch, numbers).

    Args:
        pooling: One of ``POOLINGS``.
        feature_shape: (height, width, channels) of what is pooled.
        name: The layer's.

    Returns:
        keras.layers.Layer; of a pooling that takes several layers a keras.Model.
    """
    entry = POOLINGS[pooling]
    if entry.layer:
        return getattr(keras.layers, entry.layer)(dtype="float32", name=name)
    height, width, _ = feature_shape
    tensors = {MAPS: keras.Input(feature_shape, dtype="float32", name=MAPS)}
    for layer in entry.block:
        made = getattr(keras.layers, layer.kind)(**layer.options(height * width), dtype="float32", name=layer.name)
        given = [tensors[source] for source in layer.inputs]
        tensors[layer.name] = made(given if len(given) > 1 else given[0])
    return keras.Model(tensors[MAPS], tensors[entry.block[-1].name], name=name)


def pooling_of(layer: Any) -> str | None:
    """Returns which of ``POOLINGS`` a layer is, by its class or by those of its block; None for another layer."""
    kind = type(layer).__name__
    inside = tuple(type(one).__name__ for one in getattr(layer, "layers", ())[1:])
    for name, entry in POOLINGS.items():
        if kind == entry.layer or (inside and inside == tuple(one.kind for one in entry.block)):
            return name
    return None
