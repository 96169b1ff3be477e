"""What a head file may hold: chains of plain Keras layers, read from its JSON without Keras deserialising anything.

A head is one chain from features to class probabilities; an ensemble is several from the same features, averaged at
their ends. ``keras.models.load_model`` builds whatever a file names. Here the file's JSON is data: every layer's class
and every key of its configuration must be known, every value is checked, and only then are layers built from those
values. Both dialects are read: that of Keras 2 (and of tf.keras) and that of Keras 3; Functional and Sequential.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from features.runtime.errors import InputError
from features.runtime.json_files import parse_json
from features.runtime.keras_settings import nothing_drawn
from heads.files.graph import MAX_LAYERS, graph_entries, only_end, sources_of
from heads.files.layer_config import MAX_PARAMETERS, NAME, LayerConfig, keras_object, refuse
from heads.files.pooling_block import BLOCK, pooled_by
from heads.model.functions import ELEMENT_WISE, POOLINGS
from heads.model.weights import Weights

MAX_ELEMENTS = 2**24
"""Numbers in the outputs of all layers for one image: while a model runs, they are in memory together."""
ACTIVATIONS = (*ELEMENT_WISE, "softmax")
_AVERAGE = "Average"
_ONE_WAY = "one chain of layers from one input to one output, or several that one Average joins there"
Shape = tuple[int, ...]
"""Of one image's data, without the batch axis."""


@dataclass(frozen=True)
class PlainLayer:
    """One layer, checked.

    Attributes:
        kind: Its class in ``keras.layers``; ``BLOCK`` for a pooling that is made of several layers.
        name: Its name in the model and in the file.
        options: What the class is called with, beside name and dtype; of a block, ``pooling``.
        weights: Shape of each of its weights by name, in the order of ``layer.get_weights()``.
        output: Shape of what it returns for one image.
        ends_in_softmax: Whether that is class probabilities.
    """

    kind: str
    name: str
    options: dict[str, Any]
    weights: dict[str, Shape]
    output: Shape
    ends_in_softmax: bool = False

    def build(self, shape: Shape) -> Any:
        """Returns the Keras layer for inputs of this shape."""
        import keras

        from heads.model.pooling_layer import pooling_layer

        if self.kind == BLOCK:
            return pooling_layer(self.options["pooling"], (shape[0], shape[1], shape[2]), name=self.name)
        return getattr(keras.layers, self.kind)(**self.options, name=self.name, dtype="float32")


@dataclass(frozen=True)
class PlainModel:
    """Chains of layers from the same features to class probabilities: one for a head, several for an ensemble.

    Attributes:
        name: The model's name.
        input_name: The input layer's name.
        feature_shape: (height, width, channels) that it takes.
        chains: The layers of each chain after the input, in order; as many classes at the end of each.
        average: Name of the layer that averages the chains; empty where there is one.
    """

    name: str
    input_name: str
    feature_shape: tuple[int, int, int]
    chains: tuple[tuple[PlainLayer, ...], ...]
    average: str = ""

    @property
    def layers(self) -> tuple[PlainLayer, ...]:
        """All layers that may have weights, chain by chain."""
        return tuple(chain.from_iterable(self.chains))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.layers[-1].output[0]

    def build(self, weights: Iterable[Weights]) -> Any:
        """Returns an uncompiled, Functional ``keras.Model``.

        Args:
            weights: Of each of ``layers``, in the order of ``layer.get_weights()``.
        """
        import keras

        inputs = keras.Input(self.feature_shape, dtype="float32", name=self.input_name)
        ends = []
        for layers in self.chains:
            outputs = inputs
            with nothing_drawn():
                for layer in layers:
                    outputs = layer.build(outputs.shape[1:])(outputs)
            ends.append(outputs)
        mean = keras.layers.Average(name=self.average, dtype="float32")(ends) if self.average else ends[0]
        model = keras.Model(inputs, mean, name=self.name)
        for layer, arrays in zip(self.layers, weights, strict=True):
            model.get_layer(layer.name).set_weights(arrays)
        return model

    def weights_of(self, model: Any) -> Iterator[Weights]:
        """Yields what ``build`` takes, from a model of these layers."""
        return (model.get_layer(layer.name).get_weights() for layer in self.layers)


@dataclass(frozen=True)
class _Graph:
    """The layers of a file in the order in which data passes them, their configurations not read yet.

    Attributes:
        start: The input layer.
        chains: (class, configuration) of the layers of each chain.
        average: The layer that averages the chains, where there is one.
    """

    start: LayerConfig
    chains: list[list[tuple[str, LayerConfig]]]
    average: LayerConfig | None = None


def parse_model(path: Path, text: str) -> PlainModel:
    """Reads the ``model_config`` attribute of a head file.

    Args:
        path: The file, for the message.
        text: The attribute: JSON.

    Raises:
        InputError: It is not the JSON of a plain head; the layer, and the key in it, are named.
    """
    try:
        config = parse_json(text, finite=False)
    except ValueError as error:
        raise InputError(path, field="model_config", expected="JSON", found=f"damaged ({error})") from error
    kind, values, _ = keras_object(path, "model", config)
    if kind in ("Functional", "Model"):
        graph = _functional(path, values)
    elif kind == "Sequential":
        graph = _sequential(path, values)
    else:
        refuse(path, "model_config", "a Functional or Sequential model", kind)
    return _plain_model(path, _model_name(values), graph)


def excesses(members: Sequence[PlainModel]) -> Iterator[tuple[str, int, int]]:
    """Yields what heads have too much of for one file, which averages them where they are several.

    Yields:
        What it is, how much of it a file may have, and how much of it there is.
    """
    layers = [layer for member in members for layer in member.layers]
    averages = len(members) > 1 or any(member.average for member in members)
    parameters = sum(math.prod(shape) for layer in layers for shape in layer.weights.values())
    elements = sum(math.prod(layer.output) for layer in layers)
    for what, most, found in (
        ("layers", MAX_LAYERS, len(layers) + 1 + averages),  # the input is one, too
        ("parameters", MAX_PARAMETERS, parameters),
        ("numbers in the outputs of all layers", MAX_ELEMENTS, elements),
    ):
        if found > most:
            yield what, most, found


def _model_name(values: Any) -> str:
    name = values.get("name") if isinstance(values, dict) else None
    return name if isinstance(name, str) and NAME.fullmatch(name) else "head"


def _sequential(path: Path, values: Any) -> _Graph:
    layers = values.get("layers") if isinstance(values, dict) else values  # Keras 2.1 has the bare list
    entries = [(kind, config) for kind, config, _ in graph_entries(path, layers, ("InputLayer", *_READERS))]
    if entries[0][0] == "InputLayer":
        return _Graph(entries[0][1], [entries[1:]])
    first = entries[0][1]
    shape = first.given("batch_shape") or first.given("batch_input_shape")
    if shape is None and isinstance(values, dict):
        shape = values.get("build_input_shape")
    return _Graph(LayerConfig(path, 0, {"name": "features", "batch_shape": shape}), [entries])


def _functional(path: Path, values: Any) -> _Graph:
    """Sorts the layers into chains; whatever is no chain, nor several that are averaged at the end, is refused."""
    if not isinstance(values, dict):
        refuse(path, "model_config", "a configuration", values)
    starts: list[LayerConfig] = []
    averages: list[tuple[LayerConfig, list[str]]] = []
    followers: dict[str, list[tuple[str, LayerConfig]]] = {}
    for kind, config, rest in graph_entries(path, values.get("layers"), ("InputLayer", *_READERS, _AVERAGE)):
        sources = sources_of(path, config.name, rest.get("inbound_nodes"), several=kind == _AVERAGE)
        if (not sources) != (kind == "InputLayer"):
            refuse(path, f"layer {config.name!r}", _ONE_WAY, "another graph")
        if kind == "InputLayer":
            starts.append(config)
        elif kind == _AVERAGE:
            averages.append((config, sources))
        else:
            followers.setdefault(sources[0], []).append((kind, config))
    if len(starts) != 1 or len(averages) > 1:
        refuse(path, "model_config", _ONE_WAY, "another graph")
    chains = {layers[-1][1].name: layers for layers in _chains(starts[0].name, followers)}
    average, ends = averages[0] if averages else (None, list(chains)[:1])
    # What is left in ``followers`` hangs from a fork, a cycle or the average.
    if followers or not ends or sorted(ends) != sorted(chains):
        refuse(path, "model_config", _ONE_WAY, "another graph")
    outer = (only_end(values.get("input_layers")), only_end(values.get("output_layers")))
    if outer != (starts[0].name, average.name if average else ends[0]):
        refuse(path, "model_config", _ONE_WAY, "another graph")
    return _Graph(starts[0], [chains[end] for end in ends], average)


def _chains(start: str, followers: dict[str, list[tuple[str, LayerConfig]]]) -> Iterator[list[tuple[str, LayerConfig]]]:
    """Takes from ``followers`` what follows the input, as far as each layer is followed by one."""
    for first in followers.pop(start, []):
        layers = [first]
        while len(followers.get(layers[-1][1].name, ())) == 1:
            layers += followers.pop(layers[-1][1].name)
        yield layers


def _plain_model(path: Path, name: str, graph: _Graph) -> PlainModel:
    """Reads the layers, and makes sure that the whole is a head, or an ensemble of heads, of sane size."""
    feature_shape = _input_shape(graph.start)
    chains = tuple(_chain(path, layers, feature_shape) for layers in graph.chains)
    if graph.average:
        graph.average.finish()
    plain = PlainModel(name, graph.start.name, feature_shape, chains, graph.average.name if graph.average else "")
    other = next((layers[-1] for layers in chains if layers[-1].output != (plain.classes,)), None)
    if other:
        found = f"{other.output[0]} of layer {other.name!r}"
        refuse(path, "model_config", f"{plain.classes} classes at the end of every chain", found)
    for what, most, count in excesses([plain]):
        refuse(path, "model_config", f"at most {most} {what}", count)
    return plain


def _chain(path: Path, entries: list[tuple[str, LayerConfig]], feature_shape: Shape) -> tuple[PlainLayer, ...]:
    """Reads the layers one after the other, each with the shape that the one before it returns."""
    shape = feature_shape
    layers: list[PlainLayer] = []
    for kind, config in entries:
        if kind == "InputLayer":
            refuse(path, f"layer {config.name!r}", "one input", "another")
        layer = _READERS[kind](config, shape)
        config.finish()
        if math.prod(layer.output) > MAX_ELEMENTS or not all(layer.output):
            refuse(path, f"layer {config.name!r}", f"an output of 1 to {MAX_ELEMENTS} numbers", layer.output)
        layers.append(layer)
        shape = layer.output
    if not layers or len(shape) != 1 or not _gives_probabilities(layers):
        found = f"an output of shape {shape}" + (f" of layer {layers[-1].name!r}" if layers else "")
        refuse(path, "model_config", "a head that ends in softmax over the classes", found)
    return tuple(layers)


def _gives_probabilities(layers: list[PlainLayer]) -> bool:
    working = [layer for layer in layers if layer.kind not in ("Dropout", "Flatten")]
    return bool(working) and working[-1].ends_in_softmax


def _input_shape(config: LayerConfig) -> tuple[int, int, int]:
    shape = config.take("batch_shape", None) or config.take("batch_input_shape", None)
    whole = isinstance(shape, list) and all(type(side) is int and side >= 1 for side in shape[1:])
    if not whole or len(shape) != 4 or math.prod(shape[1:]) > MAX_ELEMENTS:
        config.refuse("batch_shape", "features of [null, height, width, channels]", shape)
    config.finish()
    return shape[1], shape[2], shape[3]


def _need_rank(config: LayerConfig, shape: Shape, rank: int) -> None:
    if len(shape) != rank:
        wanted = "(height, width, channels)" if rank == 3 else "(units)"
        config.refuse("input", f"a shape {wanted}", str(shape))


def _conv(config: LayerConfig, shape: Shape) -> PlainLayer:
    _need_rank(config, shape, 3)
    filters, size, strides = config.whole("filters"), config.pair("kernel_size"), config.pair("strides", 1)
    padding = config.choice("padding", "valid", ("valid", "same"))
    activation, use_bias = config.choice("activation", "linear", ACTIVATIONS), config.flag("use_bias", True)
    config.only("data_format", "channels_last", None)
    config.only("dilation_rate", [1, 1], 1)
    config.only("groups", 1)
    config.how_trained("kernel", "bias")
    sides = []
    for side, width, step in zip(shape[:2], size, strides, strict=True):
        if padding == "valid" and width > side:
            config.refuse("kernel_size", f"at most {side}", list(size))
        sides.append(-(-side // step) if padding == "same" else (side - width) // step + 1)
    weights: dict[str, Shape] = {"kernel": (*size, shape[2], filters)} | ({"bias": (filters,)} if use_bias else {})
    options = {"filters": filters, "kernel_size": size, "strides": strides, "padding": padding}
    options |= {"activation": activation, "use_bias": use_bias, "data_format": "channels_last"}
    return PlainLayer("Conv2D", config.name, options, weights, (*sides, filters))


def _batch_norm(config: LayerConfig, shape: Shape) -> PlainLayer:
    config.only("axis", -1, len(shape), [len(shape)], [-1])
    momentum = config.number("momentum", 0.99, low=0, high=1.000001)
    epsilon = config.number("epsilon", 1e-3, low=0, high=1)
    center, scale = config.flag("center", True), config.flag("scale", True)
    config.how_trained("beta", "gamma", "moving_mean", "moving_variance")
    config.only("synchronized", False)
    config.only("renorm", False)
    config.take("renorm_momentum", None)
    names = ("gamma",) * scale + ("beta",) * center + ("moving_mean", "moving_variance")
    options = {"axis": -1, "momentum": momentum, "epsilon": epsilon, "center": center, "scale": scale}
    return PlainLayer("BatchNormalization", config.name, options, dict.fromkeys(names, shape[-1:]), shape)


def _activation(config: LayerConfig, shape: Shape) -> PlainLayer:
    activation = config.choice("activation", "linear", ACTIVATIONS)
    return PlainLayer("Activation", config.name, {"activation": activation}, {}, shape, activation == "softmax")


def _relu(config: LayerConfig, shape: Shape) -> PlainLayer:
    options: dict[str, float | None] = {"max_value": None}
    if config.given("max_value") is not None:
        options["max_value"] = config.number("max_value", 0, low=0)
    options["negative_slope"] = config.number("negative_slope", 0, low=0)
    options["threshold"] = config.number("threshold", 0, low=0)
    return PlainLayer("ReLU", config.name, options, {}, shape)


def _softmax(config: LayerConfig, shape: Shape) -> PlainLayer:
    config.only("axis", -1, len(shape))
    return PlainLayer("Softmax", config.name, {"axis": -1}, {}, shape, ends_in_softmax=True)


def _dropout(config: LayerConfig, shape: Shape) -> PlainLayer:
    rate, seed = config.number("rate", 0, low=0, high=1), config.take("seed", None)
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        config.refuse("seed", "a whole number below 2^32, or none", seed)
    config.only("noise_shape", None)
    return PlainLayer("Dropout", config.name, {"rate": rate, "seed": seed}, {}, shape)


def _flatten(config: LayerConfig, shape: Shape) -> PlainLayer:
    config.only("data_format", "channels_last", None)
    return PlainLayer("Flatten", config.name, {"data_format": "channels_last"}, {}, (math.prod(shape),))


def _global_pooling(kind: str) -> Callable[[LayerConfig, Shape], PlainLayer]:
    def read(config: LayerConfig, shape: Shape) -> PlainLayer:
        _need_rank(config, shape, 3)
        config.only("data_format", "channels_last", None)
        config.only("keepdims", False)
        return PlainLayer(kind, config.name, {"data_format": "channels_last"}, {}, shape[2:])

    return read


def _pooling_block(config: LayerConfig, shape: Shape) -> PlainLayer:
    _need_rank(config, shape, 3)
    pooling = pooled_by(config, shape)
    return PlainLayer(BLOCK, config.name, {"pooling": pooling}, {}, (POOLINGS[pooling].values * shape[2],))


def _dense(config: LayerConfig, shape: Shape) -> PlainLayer:
    _need_rank(config, shape, 1)
    units, use_bias = config.whole("units"), config.flag("use_bias", True)
    activation = config.choice("activation", "linear", ACTIVATIONS)
    config.how_trained("kernel", "bias")
    weights: dict[str, Shape] = {"kernel": (*shape, units)} | ({"bias": (units,)} if use_bias else {})
    options = {"units": units, "activation": activation, "use_bias": use_bias}
    return PlainLayer("Dense", config.name, options, weights, (units,), activation == "softmax")


_READERS: dict[str, Callable[[LayerConfig, Shape], PlainLayer]] = {
    "Conv2D": _conv,
    "BatchNormalization": _batch_norm,
    "Activation": _activation,
    "ReLU": _relu,
    "Softmax": _softmax,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_pooling("GlobalAveragePooling2D"),
    "GlobalMaxPooling2D": _global_pooling("GlobalMaxPooling2D"),
    BLOCK: _pooling_block,
    "Dense": _dense,
}
"""What a head is made of, and how each is read."""
