"""A network that is read from a file, cut at a layer, and listed: all that needs Keras."""

from __future__ import annotations

import json
import math
import shutil
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from features.extraction.network_file import CONFIG, EXPECTED, WEIGHTS, NetworkFile
from features.hdf5.door import opened
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import temporary_folder
from features.runtime.keras_settings import nothing_drawn
from features.runtime.portable import give_name
from features.runtime.text import printable, shortened
from features.runtime.unseen import warnings_unseen

_PLAIN = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
"""What a configuration may hold beside objects: the data that they are made with."""
_HOMES = tuple(
    f"keras.src.{home}"
    for home in (
        *("layers.", "models.", "ops.", "applications.", "initializers.", "regularizers.", "constraints."),
        *("dtype_policies.", "random."),
    )
)
"""Where classes are at home that make up a network."""
_FUNCTIONS = ("keras.src.activations.", "keras.src.ops.")
_SPACES = ("layers", "models", "initializers", "regularizers", "constraints", "activations", "dtype_policies")
"""Public modules in which a class is looked for whose module a file does not say."""
_SLASH = "/"
_ALL_LAYERS = "features.extract --list-layers shows all"
_MOST_BEFORE = 16
"""Tokens that are left out: one for the class, one for a teacher, and registers, of which there are 4 or 8."""


@dataclass(frozen=True)
class NetworkLayer:
    """A layer of a network.

    Attributes:
        name: What ``--layer`` calls it; one that is in a network within the network has that one's name before it.
        kind: Its class.
        shape: Of its output for one image, None where that depends on the image's size.
    """

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = " x ".join("?" if side is None else f"{side:,}" for side in self.shape)
        return f"{printable(self.name)}  {printable(self.kind)}  {sides or 'one number'}"


def load_network(file: NetworkFile) -> Any:
    """Returns the keras.Model of a file: Functional, uncompiled, from one input to one output or several.

    Raises:
        InputError: It names what Keras does not have or what makes up no network, its weights are damaged or do not
            fit, or it takes other than square images.
        BottleneckError: There is no room for a temporary copy of it.
    """
    import keras

    for module, kind in sorted(file.classes):
        if not _is_known(keras, module, kind):
            where = f" of {module}" if module else ""
            found = f"{printable(kind)}{printable(where)}, which Keras {keras.__version__} has not for networks"
            raise InputError(file.path, field="class_name", expected="layers of Keras' own", found=found)
    try:
        with warnings_unseen(), nothing_drawn():
            model = _from_archive(file) if file.archive else _from_hdf5(file)
    except BottleneckError:
        raise
    except Exception as error:  # whatever Keras stumbles over
        reason = printable(next(iter(str(error).strip().splitlines()), type(error).__name__))
        found = f"one that Keras {keras.__version__} cannot load ({shortened(reason, 160)})"
        raise InputError(file.path, expected=EXPECTED, found=found) from error
    if not getattr(model, "built", False) or not getattr(model, "inputs", None):
        raise InputError(file.path, expected=EXPECTED, found="one that does not say what it takes")
    if len(model.inputs) != 1:
        raise InputError(file.path, field="input", expected="one input", found=len(model.inputs))
    file.check_input(tuple(model.inputs[0].shape[1:]))
    if not all(np.isfinite(array).all() for array in model.get_weights()):
        raise InputError(file.path, expected="weights that are finite", found="others")
    # what a Sequential holds is found like what any other does, and the name is in nobody's way
    outputs = model.outputs[0] if len(model.outputs) == 1 else model.outputs
    return keras.Model(model.inputs[0], outputs, name="network")


def _from_archive(file: NetworkFile) -> Any:
    """Lets Keras read an archive of what was checked, and of the weights, and of nothing else that the file holds."""
    import keras

    with temporary_folder("network-") as folder:
        weights, copy = folder / WEIGHTS, folder / "network.keras"
        with zipfile.ZipFile(file.path) as archive, archive.open(WEIGHTS) as packed, weights.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        with opened(weights, "weights"):  # which HDF5 comes to an end with
            pass
        with zipfile.ZipFile(copy, "w") as archive:
            archive.writestr(CONFIG, json.dumps(file.config))
            archive.write(weights, WEIGHTS)
        weights.unlink()
        return keras.saving.load_model(copy, compile=False, safe_mode=True)


def _from_hdf5(file: NetworkFile) -> Any:
    import keras

    with opened(file.path, EXPECTED):  # which HDF5 comes to an end with
        pass
    with temporary_folder("network-") as folder:
        alias = folder / "network.h5"  # Keras goes by the ending
        give_name(file.path, alias)
        return keras.saving.load_model(alias, compile=False, safe_mode=True)


def _is_known(keras: Any, module: str, kind: str) -> bool:
    """Whether a name stands for a class, or a function, of which networks are made."""
    if kind in _PLAIN:
        return True
    modules = [module] if module else [*(f"keras.{space}" for space in _SPACES), "keras.src.models.functional"]
    found = (getattr(sys.modules.get(one) or _public(keras, one), kind, None) for one in modules)
    return any(_is_at_home(one) for one in found)


def _public(keras: Any, module: str) -> Any:
    """A public module of Keras by its dotted name, as an attribute: nothing is imported for a file's sake."""
    place = keras
    for part in module.split(".")[1:]:
        place = getattr(place, part, None)
    return place


def _is_at_home(found: Any) -> bool:
    home = f"{getattr(found, '__module__', '')}."
    return home.startswith(_HOMES if isinstance(found, type) else _FUNCTIONS) and callable(found)


def layers_of(network: Any) -> list[NetworkLayer]:
    """Returns the layers of a network that can be named, in the order in which data passes them."""
    return [NetworkLayer(name, kind, shape) for name, kind, shape in _walk(network)]


def _walk(network: Any, before: str = "") -> Iterator[tuple[str, str, tuple[int | None, ...]]]:
    for layer in network.layers:
        name, kind = f"{before}{layer.name}", type(layer).__name__
        shape = _shape_of(layer)
        if kind != "InputLayer" and shape is not None:
            yield name, kind, shape
        if hasattr(layer, "layers") and hasattr(layer, "outputs"):
            yield from _walk(layer, f"{name}{_SLASH}")


def _shape_of(layer: Any) -> tuple[int | None, ...] | None:
    """Of the output for one image; None where there is not one, or it is not known."""
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        return None
    return tuple(shape[1:])


def cut(network: Any, name: str) -> Any:
    """Returns the part of a network up to a layer; it shares the network's weights.

    Args:
        network: Functional keras.Model with one input.
        name: Of a layer, as ``layers_of`` has it; of one in a network within it, its own name does if no other has it.

    Raises:
        InputError: There is no such layer, several have the name, or it has not one output.
    """
    import keras

    names = [layer.name for layer in layers_of(network)]
    wanted = [one for one in names if one == name] or [one for one in names if one.rpartition(_SLASH)[2] == name]
    if not wanted:
        leaves = dict.fromkeys([*names, *(one.rpartition(_SLASH)[2] for one in names)])
        near = ", ".join(get_close_matches(name, leaves, n=3, cutoff=0.5))
        hint = f"near it: {near}" if near else _ALL_LAYERS
        raise InputError("--layer", expected=f"one of {len(names)} layers", found=printable(name), hint=hint)
    if len(wanted) > 1:
        raise InputError("--layer", expected=f"one of {', '.join(wanted[:8])}", found=printable(name))
    inputs, output = _up_to(network, wanted[0].split(_SLASH))
    return keras.Model(inputs, output, name="network")


def _up_to(network: Any, way: Sequence[str]) -> tuple[Any, Any]:
    """Input and output tensor of the part of a network that ends with a layer, which may be in one of its layers."""
    import keras

    met: list[tuple[Any, Any]] = []

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        outputs = layer(*arguments, **options)
        if layer.name == way[0]:
            met.append((arguments[0], outputs))
        return outputs

    # a Sequential cannot be gone through
    functional = keras.Model(network.inputs[0], network.outputs[0] if len(network.outputs) == 1 else network.outputs)
    whole = keras.models.clone_model(functional, clone_function=lambda layer: layer, call_function=call)
    if len(met) != 1:
        expected = f"a layer that is passed once, as {way[0]}"
        raise InputError("--layer", expected=expected, found=f"{len(met)} times")
    given, output = met[0]
    if len(way) > 1:
        inner = keras.Model(*_up_to(network.get_layer(way[0]), way[1:]), name=network.get_layer(way[0]).name)
        output = inner(given)
    return whole.inputs[0], output


def as_map(features: Any, what: str) -> tuple[Any, str]:
    """Makes the output of a network for images of known size a map, by layers of Keras' own.

    A vector becomes a map of 1 x 1. Tokens become the largest square that they fill, as patches are counted from left
    to right and from top to bottom; those that are left stand at the front, as class and register tokens do.

    Args:
        features: (batch, height, width, channels), (batch, channels) or (batch, tokens, channels).
        what: Whose output it is, for messages.

    Returns:
        (batch, height, width, channels), and what should be said of it, '' for nothing.

    Raises:
        InputError: It is nothing of these.
    """
    import keras

    if isinstance(features, list | tuple | dict):
        expected = "the layer whose output is wanted, as there are several outputs"
        raise InputError("--layer", expected=expected, found="none", hint=_ALL_LAYERS)
    shape = tuple(features.shape[1:])
    match shape:
        case (int(), int(), int()):
            return features, ""
        case (int(channels),):
            return keras.layers.Reshape((1, 1, channels), name="map")(features), f"{what} is a vector: a map of 1 x 1"
        case (int(tokens), int(channels)) if tokens - math.isqrt(tokens) ** 2 <= _MOST_BEFORE:
            side = math.isqrt(tokens)
            before = tokens - side**2
            patches = keras.layers.Cropping1D((before, 0), name="patches")(features) if before else features
            said = f"{what} is {tokens} tokens: a map of {side} x {side}"
            said += f", without the first {before} (class or register tokens)" if before else ""
            return keras.layers.Reshape((side, side, channels), name="map")(patches), said
    expected = "a map (height, width, channels), a vector, or tokens of a square grid"
    raise InputError("--layer", expected=expected, found=f"{shape} of {what}", hint=_ALL_LAYERS)
