"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): where in a bottleneck a head sees what speaks for a class.

As in the article, the maps are taken from the head's own convolution. What follows it is dropout, pooling, dense layers
and softmax: their gradients are written down here, so they are the same on every backend and nothing is traced.

The paper differentiates the class's score before softmax. Here it is that score less the mean of all classes' scores.
What all scores have in common softmax takes away again: two heads with the same probabilities for every image may
differ in it, and a map of it is of nothing that anybody is told. Gradients are averaged over the places, as in the
paper; without that (HiResCAM, arXiv:2011.08891) a map is exact for a flattening head. What was compared, on real scans
and against what covering a place does, is in docs/architecture.md.

The map of an ensemble is the mean of its members' maps, each weighted by its member's share of the ensemble's
probability of the class. With p the mean of the members' p_m, that is what differentiation gives: the gradient of log p
is the sum of p_m / (p_1 + p_2 + ...) times the gradient of log p_m. So a member that does not call the class has no say
in what speaks for it. Maps are in [0, 1] before they are weighted: how far apart a member's scores lie depends on how
it was trained, and is no measure of what it saw. The mean is not stretched to 1 again: where members see different
places it is fainter, and stretching would show the map of a member without any say where the others have none. On
24 scans and four heads the rank correlation with the ensemble's own occlusion map was 0.55 for the class that it calls
and 0.15 for the runner-up, for a member's map 0.51 and 0.05 on the mean; without weights 0.55 and 0.11, a difference
within the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from heads.files.ensemble import members_of
from heads.model.functions import ACTIVATIONS, POOLINGS
from heads.model.pooling_layer import pooling_of

Floats = npt.NDArray[np.float32]

_SHAPELESS = ("BatchNormalization", "Activation", "ReLU", "Dropout")
"""Layers that may stand between a convolution and what reads its activation: they keep every place where it is."""


def class_activation_map(model: Any, features: npt.NDArray[Any], class_index: int | npt.NDArray[Any]) -> Floats:
    """Computes where a head sees what speaks for a class.

    Args:
        model: A head as ``heads.files.head_file.read_head`` returns it, or ``heads.model.build.build_head``; or an
            ensemble of such.
        features: Bottlenecks of one image (height, width, channels) or of several (images, height, width, channels).
        class_index: The class, one for all images, or (images,) one for each.

    Returns:
        (height, width) or (images, height, width) in [0, 1], of the size of the last convolution's output (of the
        features, where an ensemble's convolutions differ in that): 1 at the place that speaks most for the class, of an
        ensemble only where its members agree on that place; 0 everywhere where nothing speaks for it.
    """
    images = features if features.ndim == 4 else features[None]
    heads = members_of(model)
    maps = [_map(head, images, class_index) for head in heads]
    joint = maps[0] if len(heads) == 1 else _mean(maps, _shares(heads, images, class_index), images.shape[1:3])
    return joint if features.ndim == 4 else joint[0]


def _map(head: Any, features: npt.NDArray[Any], class_index: int | npt.NDArray[Any]) -> Floats:
    """The maps (images, height, width) of a head that is one chain of layers."""
    maps = np.maximum(evidence(head, features, class_index), 0)
    largest = maps.max(axis=(1, 2), keepdims=True)
    # A subnormal largest value would divide to infinity: there is nothing to see either.
    seen = largest > np.finfo(np.float32).tiny
    scaled: Floats = np.divide(maps, largest, out=np.zeros_like(maps), where=seen).astype(np.float32)
    return scaled


def _shares(heads: Sequence[Any], features: npt.NDArray[Any], class_index: int | npt.NDArray[Any]) -> Floats:
    """(heads, images): which part of the class's probability comes from each head; equal where there is none."""
    tensor, classes = keras.ops.convert_to_tensor(features, "float32"), np.broadcast_to(class_index, len(features))
    said = np.stack([_array(head(tensor, training=False))[np.arange(len(classes)), classes] for head in heads])
    said = said.astype(np.float64) + np.finfo(np.float32).tiny
    return np.asarray(said / said.sum(axis=0), np.float32)


def _mean(maps: Sequence[Floats], shares: Floats, size: tuple[int, ...]) -> Floats:
    """Weighted mean of maps; those of different sizes are brought to one."""
    if len({one.shape for one in maps}) > 1:
        resize = keras.ops.image.resize
        maps = [_array(resize(one[..., None], size, data_format="channels_last"))[..., 0] for one in maps]
    mean = np.einsum("mnhw,mn->nhw", np.stack(maps), shares)
    return np.asarray(mean.clip(0, 1), np.float32)  # rounding may lead out of it


def evidence(model: Any, features: npt.NDArray[Any], class_index: int | npt.NDArray[Any]) -> Floats:
    """Computes what speaks for a class at each place, and, below 0, what speaks against it.

    Args:
        model: A head.
        features: (images, height, width, channels).
        class_index: The class, one for all images, or (images,) one for each.

    Returns:
        (images, height, width) in the unit of the scores before softmax, so that maps can be compared and added up.
    """
    activation, gradient = activation_gradient(model, features, class_index)
    weights = gradient.mean(axis=(1, 2))
    return np.asarray(np.einsum("nhwk,nk->nhw", activation, weights), np.float32)


def activation_gradient(
    model: Any, features: npt.NDArray[Any], class_index: int | npt.NDArray[Any]
) -> tuple[Floats, Floats]:
    """Computes the activation of a head's last convolution, and the gradient of a class's score with respect to it.

    The score is the one before softmax, as in the paper (the gradient of the probability itself vanishes where the head
    is sure), less the mean over the classes: probabilities alone determine it.

    Args:
        model: A head, no ensemble.
        features: (images, height, width, channels).
        class_index: The class, one for all images, or (images,) one for each.

    Returns:
        Both (images, height, width, channels of the convolution).
    """
    count = model.output_shape[-1]
    shares: Floats = np.eye(count, dtype=np.float32) - np.float32(1 / count)
    return score_gradient(model, features, shares[np.broadcast_to(class_index, len(features))])


def score_gradient(model: Any, features: npt.NDArray[Any], shares: Floats) -> tuple[Floats, Floats]:
    """Computes the activation of a head's last convolution, and the gradient of a sum of its scores.

    Args:
        model: A head.
        features: (images, height, width, channels).
        shares: (images, classes) by which the scores before softmax are multiplied, then added up.

    Returns:
        Both (images, height, width, channels of the convolution).
    """
    layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
    outputs = _outputs(layers, features)
    target, end = _last_convolution(layers), _softmax(layers)
    gradient = shares
    if type(layers[end]).__name__ == "Dense":
        gradient = gradient @ _array(layers[end].kernel).T
    gradient = gradient.reshape(outputs[end].shape)
    for index in range(end - 1, target - 1, -1):
        gradient = _pulled_back(layers[index], outputs[index], gradient)
    return outputs[target], gradient


def _outputs(layers: list[Any], features: npt.NDArray[Any]) -> list[Floats]:
    """The features, then what each layer makes of what the one before it gives: layer ``i`` takes entry ``i``."""
    tensor = keras.ops.convert_to_tensor(features, "float32")
    outputs = [_array(tensor)]
    for layer in layers:
        tensor = layer(tensor, training=False)
        outputs.append(_array(tensor))
    return outputs


def _array(tensor: Any) -> Floats:
    return np.asarray(keras.ops.convert_to_numpy(tensor), np.float32)


def _last_convolution(layers: list[Any]) -> int:
    """Which of ``_outputs`` is the activation of the last convolution; the features where a head has none.

    The last non-linear function of the convolution's block, or, where there is none, the end of the block.
    """
    kinds = [type(layer).__name__ for layer in layers]
    if "Conv2D" not in kinds:
        return 0
    at = len(kinds) - 1 - kinds[::-1].index("Conv2D")
    block = [at]
    for place in range(at + 1, len(layers)):
        if kinds[place] not in _SHAPELESS or _function(layers[place]) == "softmax":
            break
        if kinds[place] != "Dropout":
            block.append(place)
    bent = [place for place in block if kinds[place] == "ReLU" or _function(layers[place]) != "linear"]
    return (bent or block)[-1] + 1


def _softmax(layers: list[Any]) -> int:
    """Which layer makes the class probabilities: the last one that does more than keep or reshape what it is given."""
    return max(at for at, layer in enumerate(layers) if type(layer).__name__ not in ("Dropout", "Flatten"))


def _function(layer: Any) -> str:
    """Name of a layer's activation function; ``linear`` where it has none."""
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def _pulled_back(layer: Any, inputs: Floats, gradient: Floats) -> Floats:
    """Returns the gradient with respect to a layer's inputs, given that with respect to its outputs."""
    return np.asarray(_PULL_BACK[type(layer).__name__](layer, inputs, gradient), np.float32)


def _through_pooling(layer: Any, inputs: Floats, gradient: Floats) -> Any:
    count, height, width, channels = inputs.shape
    name = pooling_of(layer)
    assert name is not None, "no pooling of a head"
    pooling = POOLINGS[name]
    values = np.moveaxis(inputs, 3, 1).reshape(count, channels, height * width)
    error = np.moveaxis(gradient.reshape(count, pooling.values, channels), 1, 2)
    back = pooling.backward(_OPS, error, values, height * width, -1)
    return np.ascontiguousarray(np.moveaxis(back.reshape(count, channels, height, width), 1, 3))


def _through_batch_norm(layer: Any, inputs: Floats, gradient: Floats) -> Any:
    deviation = np.sqrt(_array(layer.moving_variance) + layer.epsilon)
    return gradient * (_array(layer.gamma) if layer.scale else 1) / deviation


def _through_dense(layer: Any, inputs: Floats, gradient: Floats) -> Any:
    kernel = _array(layer.kernel)
    before = inputs @ kernel + (_array(layer.bias) if layer.use_bias else 0)
    return _through_function(_function(layer), before, gradient) @ kernel.T


def _through_relu(layer: Any, inputs: Floats, gradient: Floats) -> Any:
    """The layer, which has more to it than the function."""
    slope = np.where(inputs > layer.threshold, 1, layer.negative_slope)
    ceiling = np.inf if layer.max_value is None else layer.max_value
    return gradient * np.where(inputs < ceiling, slope, 0)


def _through_function(function: str, inputs: Floats, gradient: Floats) -> Any:
    if function != "softmax":
        return gradient * ACTIVATIONS[function].slope(_OPS, inputs)
    shares = np.exp(inputs - inputs.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return shares * (gradient - (gradient * shares).sum(axis=-1, keepdims=True))


_PULL_BACK: dict[str, Callable[[Any, Floats, Floats], Any]] = {
    "Dropout": lambda layer, inputs, gradient: gradient,
    "Flatten": lambda layer, inputs, gradient: gradient.reshape(inputs.shape),
    "GlobalAveragePooling2D": _through_pooling,
    "GlobalMaxPooling2D": _through_pooling,
    "Functional": _through_pooling,
    "BatchNormalization": _through_batch_norm,
    "Dense": _through_dense,
    "Activation": lambda layer, inputs, gradient: _through_function(_function(layer), inputs, gradient),
    "Softmax": lambda layer, inputs, gradient: _through_function("softmax", inputs, gradient),
    "ReLU": _through_relu,
}
"""By kind, every layer of ``heads.files.plain_layers`` that can follow the last convolution."""


class _NumPyOps:
    """NumPy by the names of ``keras.ops`` that ``heads.model.functions`` uses: no backend has to trace anything."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def cast(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
        return values.astype(dtype)

    @staticmethod
    def sigmoid(values: Floats) -> Floats:
        return np.asarray((1 + np.tanh(values / 2)) / 2, values.dtype)

    @staticmethod
    def erf(values: Floats) -> Floats:
        return _array(keras.ops.erf(values))


_OPS = _NumPyOps()
