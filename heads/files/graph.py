"""The graph of layers in a model's JSON: which layers there are, and what each is connected with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heads.files.layer_config import LayerConfig, keras_object, quoted, refuse

MAX_LAYERS = 256
"""Of a whole file: twenty-five of the deepest heads of a search, averaged, have 252."""


def graph_entries(path: Path, layers: Any, kinds: tuple[str, ...]) -> list[tuple[str, LayerConfig, dict[str, Any]]]:
    """Takes a list of layers apart.

    Args:
        path: The file, for messages.
        layers: The list, decoded.
        kinds: Classes that there may be.

    Returns:
        (class, configuration, rest) of each layer; names are checked and differ.

    Raises:
        InputError: Something else is there; it is named.
    """
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        count = len(layers) if isinstance(layers, list) else "none"
        refuse(path, "model_config", f"1 to {MAX_LAYERS} layers", f"{count}")
    entries = []
    for number, entry in enumerate(layers):
        kind, values, rest = keras_object(path, f"layer {number}", entry)
        if kind not in kinds:
            name = values.get("name", number) if isinstance(values, dict) else number
            refuse(path, f"layer {quoted(name)}", f"one of {', '.join(kinds)}", kind)
        if not isinstance(values, dict):
            refuse(path, f"layer {number}", "a configuration", values)
        entries.append((kind, LayerConfig(path, number, values), rest))
    names = [config.name for _, config, _ in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        refuse(path, "model_config", "layers with different names", f"{twice} twice")
    return entries


def only_end(ends: Any) -> Any:
    """Returns the layer in ``["name", 0, 0]`` (Keras 3) or ``[["name", 0, 0]]`` (Keras 2); None for anything else."""
    if isinstance(ends, list) and len(ends) == 1:
        ends = ends[0]
    return ends[0] if isinstance(ends, list) and len(ends) == 3 and ends[1:] == [0, 0] else None


def sources_of(path: Path, name: str, nodes: Any, *, several: bool) -> list[str]:
    """Returns which layers the only call of a layer takes its inputs from: one, or several; none for the input layer.

    Raises:
        InputError: It is called in another way.
    """
    if nodes == []:
        return []
    expected = "one call with several inputs" if several else "one call with one input"
    try:
        inputs = [(source, call, output, options) for source, call, output, options in _inputs(nodes, several)]
    except (TypeError, ValueError, KeyError):
        refuse(path, f"layer {name!r}", expected, nodes)
    harmless = {"mask": (None,), "training": (None, False, True)}
    for source, call, output, options in inputs:
        if (call, output) != (0, 0) or not isinstance(source, str) or not isinstance(options, dict):
            refuse(path, f"layer {name!r}", expected, nodes)
        for key, value in options.items():
            if not any(value is allowed for allowed in harmless.get(key, ())):
                refuse(path, f"layer {name!r}", "a call without further arguments", f"{key}={value!r}")
    if several != (len(inputs) > 1) or not inputs:
        refuse(path, f"layer {name!r}", expected, nodes)
    return [source for source, *_ in inputs]


def _inputs(nodes: Any, several: bool) -> list[tuple[Any, ...]]:
    """(layer, which call of it, which output, options) of each input; fails in many ways where there is none."""
    (node,) = nodes
    if isinstance(node, dict):  # Keras 3
        (tensors,), options = node["args"], node["kwargs"]
        return [(*one["config"]["keras_history"], options) for one in (tensors if several else [tensors])]
    return [(*history, {}) if len(history) == 3 else tuple(history) for history in node]  # Keras 2
