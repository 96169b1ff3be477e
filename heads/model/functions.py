"""Activations and poolings, each one entry: what it is in a Keras model, in the bank, and on the way back.

The space and ``HeadSpec`` (names), the model (layers), the bank (forward and derivative), the reader of foreign files
(what may stand in them) and Grad-CAM (derivative) all take what they need from here. To add one is to add an entry:
``tests/heads/model/test_functions.py`` tries every entry against Keras and against automatic differentiation.

Formulas are written for any namespace that has the names of ``keras.ops`` which they use: the bank hands in
``keras.ops``, Grad-CAM NumPy. So nothing here loads a backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Ops = Any
"""``keras.ops``, or what has the same names."""
Tensor = Any


@dataclass(frozen=True, kw_only=True)
class Activation:
    """An element-wise function that goes by Keras' name: ``keras.layers.Activation(name)`` is its layer.

    Attributes:
        slope: ``(ops, values)`` to its derivative there, numbers or bool.
        forward: ``(ops, values)`` to its values, as the bank computes them; None for one that no search tries and that
            is only read from foreign files.
        aliases: Other names that files give it.
    """

    slope: Callable[[Ops, Tensor], Tensor]
    forward: Callable[[Ops, Tensor], Tensor] | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BlockLayer:
    """One layer of a pooling that is made of several.

    Attributes:
        name: Inside of the block.
        kind: Class in ``keras.layers``.
        inputs: Names of the layers that it takes its inputs from; ``MAPS`` is what the block is given.
        options: ``(positions)`` to all that its configuration says beside its name.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    options: Callable[[int], dict[str, Any]]


MAPS = "maps"
"""Name of a block's input layer."""


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """What stands between the convolution and the dense layers.

    Attributes:
        layer: Class in ``keras.layers``, from (batch, height, width, channels) to (batch, numbers); empty for a block.
        block: The layers instead, in order, where it takes several: a model of its own within the head.
        keeps_positions: Whether every position reaches the dense layers.
        values: Else so many values of each channel do. Of several, those of all channels stand side by side.
        forward: ``(ops, values, axis)``: pools over the axis of the positions, which becomes as long as what is kept.
        backward: ``(ops, error, values, positions, axis)``: the gradient of what was pooled, given that of the result.
            ``values`` are what was pooled.
        looks_back: Whether ``backward`` needs these values; else they may be None.
    """

    layer: str = ""
    block: tuple[BlockLayer, ...] = ()
    keeps_positions: bool = False
    values: int = 1
    forward: Callable[[Ops, Tensor, int], Tensor]
    backward: Callable[[Ops, Tensor, Tensor, int, int], Tensor]
    looks_back: bool = False


# --- activations ----------------------------------------------------------------------------------------------


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""As in ``keras.activations.selu``."""


def _normal_share(ops: Ops, values: Tensor) -> Tensor:
    return 0.5 * (1 + ops.erf(values * math.sqrt(0.5)))


def _gelu_slope(ops: Ops, values: Tensor) -> Tensor:
    density = ops.exp(-0.5 * ops.square(values)) * (1 / math.sqrt(2 * math.pi))
    return _normal_share(ops, values) + values * density


def _silu_slope(ops: Ops, values: Tensor) -> Tensor:
    share = ops.sigmoid(values)
    return share * (1 + values * (1 - share))


def _relu_slope(ops: Ops, values: Tensor) -> Tensor:
    # NaN compares false: written so that a broken head stays broken instead of standing still.
    return ops.where(values <= 0, 0.0, ops.ones_like(values))


def _selu_slope(ops: Ops, values: Tensor) -> Tensor:
    below = _SELU_SCALE * _SELU_ALPHA * ops.exp(ops.minimum(values, 0))
    return ops.where(values > 0, _SELU_SCALE, below)


def _sigmoid_slope(ops: Ops, values: Tensor) -> Tensor:
    return ops.sigmoid(values) * (1 - ops.sigmoid(values))


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "linear": Activation(slope=lambda ops, values: ops.ones_like(values), forward=lambda ops, values: values),
        "relu": Activation(slope=_relu_slope, forward=lambda ops, values: ops.relu(values)),
        "relu6": Activation(slope=lambda ops, values: ops.logical_and(values > 0, values < 6)),
        "gelu": Activation(slope=_gelu_slope, forward=lambda ops, values: values * _normal_share(ops, values)),
        "silu": Activation(
            slope=_silu_slope, forward=lambda ops, values: values * ops.sigmoid(values), aliases=("swish",)
        ),
        "elu": Activation(slope=lambda ops, values: ops.exp(ops.minimum(values, 0))),
        "selu": Activation(slope=_selu_slope),
        "tanh": Activation(slope=lambda ops, values: 1 - ops.square(ops.tanh(values))),
        "sigmoid": Activation(slope=_sigmoid_slope),
        "softplus": Activation(slope=lambda ops, values: ops.sigmoid(values)),
    }
)
"""By Keras' name. Those with a ``forward`` are what a search may try."""


# --- poolings -------------------------------------------------------------------------------------------------


def _average(ops: Ops, values: Tensor, axis: int) -> Tensor:
    return ops.mean(values, axis=axis, keepdims=True)


def _back_from_average(ops: Ops, error: Tensor, values: Tensor, positions: int, axis: int) -> Tensor:
    return ops.repeat(error / positions, positions, axis=axis)


def _max(ops: Ops, values: Tensor, axis: int) -> Tensor:
    return ops.max(values, axis=axis, keepdims=True)


def _back_from_max(ops: Ops, error: Tensor, values: Tensor, positions: int, axis: int) -> Tensor:
    """Shared evenly between equals, as Keras' backends do."""
    highest = values == _max(ops, values, axis)
    shares = ops.sum(ops.cast(highest, "float32"), axis=axis, keepdims=True)
    return ops.where(highest, error / shares, 0.0)


def _back_from_both(ops: Ops, error: Tensor, values: Tensor, positions: int, axis: int) -> Tensor:
    of_average, of_max = ops.split(error, 2, axis=axis)
    average = _back_from_average(ops, of_average, values, positions, axis)
    return average + _back_from_max(ops, of_max, values, positions, axis)


def _root_of_squares(ops: Ops, values: Tensor, axis: int) -> Tensor:
    """The generalised mean of what is positive, with the exponent 2."""
    # Not quite 0 where nothing is: the slope of a root is infinite there, and automatic differentiation has no number.
    return ops.sqrt(ops.maximum(_average(ops, ops.square(ops.maximum(values, 0)), axis), 1e-24))


def _back_from_root(ops: Ops, error: Tensor, values: Tensor, positions: int, axis: int) -> Tensor:
    root = _root_of_squares(ops, values, axis)
    return error / (positions * root) * ops.maximum(values, 0)


def _reduce(positions: int) -> dict[str, Any]:
    return {"data_format": "channels_last", "keepdims": False}


_BOTH = (
    BlockLayer(name="average", kind="GlobalAveragePooling2D", inputs=(MAPS,), options=_reduce),
    BlockLayer(name="max", kind="GlobalMaxPooling2D", inputs=(MAPS,), options=_reduce),
    BlockLayer(name="both", kind="Concatenate", inputs=("average", "max"), options=lambda positions: {"axis": -1}),
)
_ROOT = (
    BlockLayer(
        name="positive",
        kind="ReLU",
        inputs=(MAPS,),
        options=lambda positions: {"max_value": None, "negative_slope": 0.0, "threshold": 0.0},
    ),
    # Keras' own layers take no other root than that of a vector's length. A channel's places divided by their length
    # and multiplied with themselves sum up to it. The axis is the last one, as by default: Keras loses any other when
    # it loads an HDF5 file.
    BlockLayer(
        name="places", kind="Reshape", inputs=("positive",), options=lambda positions: {"target_shape": [positions, -1]}
    ),
    BlockLayer(name="channels", kind="Permute", inputs=("places",), options=lambda positions: {"dims": [2, 1]}),
    BlockLayer(name="unit", kind="UnitNormalization", inputs=("channels",), options=lambda positions: {"axis": -1}),
    BlockLayer(name="along", kind="Multiply", inputs=("channels", "unit"), options=lambda positions: {}),
    BlockLayer(
        name="mean",
        kind="GlobalAveragePooling1D",
        inputs=("along",),
        options=lambda positions: {"data_format": "channels_first", "keepdims": False},
    ),
    BlockLayer(
        name="root",
        kind="Rescaling",
        inputs=("mean",),
        options=lambda positions: {"scale": math.sqrt(positions), "offset": 0.0},
    ),
)

POOLINGS: Mapping[str, Pooling] = MappingProxyType(
    {
        "flatten": Pooling(
            layer="Flatten",
            keeps_positions=True,
            forward=lambda ops, values, axis: values,
            backward=lambda ops, error, values, positions, axis: error,
        ),
        "average": Pooling(layer="GlobalAveragePooling2D", forward=_average, backward=_back_from_average),
        "max": Pooling(layer="GlobalMaxPooling2D", forward=_max, backward=_back_from_max, looks_back=True),
        # Side by side, as fastai's AdaptiveConcatPool2d has them.
        "concat": Pooling(
            block=_BOTH,
            values=2,
            forward=lambda ops, values, axis: ops.concatenate(
                [_average(ops, values, axis), _max(ops, values, axis)], axis=axis
            ),
            backward=_back_from_both,
            looks_back=True,
        ),
        # Radenovic, Tolias and Chum 2018 (arXiv:1711.02512) learn the exponent, from 3: a plain head has no other root.
        "gem": Pooling(block=_ROOT, forward=_root_of_squares, backward=_back_from_root, looks_back=True),
    }
)
"""By the name that a space and a ``HeadSpec`` give it."""
SEARCHED_ACTIVATIONS = tuple(name for name, activation in ACTIVATIONS.items() if activation.forward is not None)
ELEMENT_WISE = tuple(name for key, activation in ACTIVATIONS.items() for name in (key, *activation.aliases))
"""All names by which a file may ask for an entry of ``ACTIVATIONS``."""


def pooled_values(pooling: str, positions: int) -> int:
    """Returns how many values of each channel reach the dense layers."""
    return positions if POOLINGS[pooling].keeps_positions else POOLINGS[pooling].values
