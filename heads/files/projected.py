"""Heads between a backbone's channels and the directions that a compressed store keeps of them.

The first layer is a 1x1 convolution without an offset that is applied place by place, so a kernel of the directions and
one of the channels are the same map: ``basis @ kernel`` takes what ``kernel`` takes after the projection.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.store.projection import Projection
from features.store.schema import StoreHeader
from heads.files.metadata import HeadMetadata
from heads.files.plain_layers import PlainModel, parse_model
from heads.model.weights import Weights

Kernel = npt.NDArray[np.float32]


def folded_back(weights: Weights, projection: Projection | None) -> Weights:
    """Returns the weights of a head on the backbone's own channels.

    Args:
        weights: As trained, in the order of ``model.get_weights()``: first the kernel (1, 1, kept, width).
        projection: Of the features that it was trained on; None where these have all channels, and weights stay.

    Returns:
        The same weights with a kernel (1, 1, channels, width).
    """
    return weights if projection is None else [_product(projection.basis, weights[0]), *weights[1:]]


def for_features_of(where: Path, model: Any, header: StoreHeader) -> Any:
    """Returns a head as it takes the features of a source: on those of a compressed one its kernel is projected.

    For a head that was trained in the same directions this changes nothing but the last bits. Of another one it leaves
    out what it makes of the other directions.

    Args:
        where: The head's file, for the message.
        model: A head or an ensemble on the backbone's own channels, as ``heads.files.head_file.read_head`` returns it.
        header: Of the source.

    Returns:
        The model itself where the source has all channels; else another, uncompiled.

    Raises:
        InputError: It does not begin with 1x1 convolutions, so that it needs all channels.
    """
    from heads.model.keras_internals import architecture  # only who has a model has Keras

    projection = header.projection
    if projection is None:
        return model
    plain = parse_model(where, architecture(model))
    for layers in plain.chains:
        first = layers[0]
        if first.kind != "Conv2D" or first.weights["kernel"][:2] != (1, 1):
            hint = "score it on the store that was compressed"
            raise InputError(
                where, field=f"layer {first.name!r}", expected="a 1x1 convolution first", found=first.kind, hint=hint
            )
    begins = {layers[0].name for layers in plain.chains}
    weights = (
        [_product(projection.basis.T, arrays[0]), *arrays[1:]] if layer.name in begins else arrays
        for layer, arrays in zip(plain.layers, plain.weights_of(model), strict=True)
    )
    return _narrowed(plain, header.feature_shape).build(weights)


def what_is_lost(metadata: HeadMetadata, header: StoreHeader) -> str:
    """Says that a source is compressed in other directions than a head was trained in; '' where it is not."""
    projection = header.projection
    if projection is None or projection.digest == metadata.projection:
        return ""
    return f"holds {projection}, other directions than the head was trained in: what it makes of the rest is lost"


def _narrowed(plain: PlainModel, feature_shape: tuple[int, int, int]) -> PlainModel:
    """The same layers, the first of each chain with a kernel of fewer channels."""
    chains = tuple(
        (replace(first, weights=first.weights | {"kernel": (1, 1, feature_shape[2], first.output[2])}), *rest)
        for first, *rest in plain.chains
    )
    return replace(plain, feature_shape=feature_shape, chains=chains)


def _product(matrix: Kernel, kernel: Kernel) -> Kernel:
    """(1, 1, inputs, width) for a matrix (inputs, channels) and a kernel (1, 1, channels, width), rounded once."""
    return (matrix.astype(np.float64) @ kernel.astype(np.float64)).astype(np.float32)
