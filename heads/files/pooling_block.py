"""A pooling that is made of several layers, as it stands in a head file: a small model within the head.

It is no door for other graphs: what stands there must be, layer by layer and number by number, one of the blocks that
``heads.model.functions`` knows.
"""

from __future__ import annotations

from typing import Any

from heads.files.graph import graph_entries, only_end, sources_of
from heads.files.layer_config import LayerConfig
from heads.model.functions import MAPS, POOLINGS, BlockLayer

BLOCK = "Functional"
"""Class of a model within a model."""
_BLOCKS = {name: entry.block for name, entry in POOLINGS.items() if entry.block}
_KINDS = tuple(sorted({layer.kind for block in _BLOCKS.values() for layer in block}))
_JOINING = {layer.kind for block in _BLOCKS.values() for layer in block if len(layer.inputs) > 1}


def pooled_by(config: LayerConfig, shape: tuple[int, ...]) -> str:
    """Reads a model within a head.

    Args:
        config: Its configuration.
        shape: (height, width, channels) of what it is given.

    Returns:
        Which pooling it is.

    Raises:
        InputError: It is none that is known; what differs is named.
    """
    ends = only_end(config.take("input_layers", None)), only_end(config.take("output_layers", None))
    entries = graph_entries(config.path, config.take("layers", None), ("InputLayer", *_KINDS))
    first, *rest = [(kind, layer, _sources(kind, layer, entry)) for kind, layer, entry in entries]
    found = [(kind, layer.name, sources) for kind, layer, sources in rest]
    name = next((name for name, block in _BLOCKS.items() if found == [_told(layer) for layer in block]), None)
    start = first[1]
    if name is None or (first[0], start.name) != ("InputLayer", MAPS) or ends != (MAPS, _BLOCKS[name][-1].name):
        shown = ", ".join(kind for kind, *_ in found)
        config.refuse("layers", f"the layers of one of the poolings {', '.join(_BLOCKS)}", shown)
    start.only("batch_shape", [None, *shape])
    start.finish()
    for (_, layer, _), known in zip(rest, _BLOCKS[name], strict=True):
        for key, value in known.options(shape[0] * shape[1]).items():
            layer.only(key, value)
        layer.finish()
    return name


def _sources(kind: str, layer: LayerConfig, entry: dict[str, Any]) -> list[str]:
    return sources_of(layer.path, layer.name, entry.get("inbound_nodes"), several=kind in _JOINING)


def _told(layer: BlockLayer) -> tuple[str, str, list[str]]:
    return layer.kind, layer.name, list(layer.inputs)
