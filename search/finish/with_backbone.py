"""Heads and the backbones that they need, as one model from image to class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heads.files.backbone import NamedBackbone, backbone_spec, rebuild_backbone
from heads.files.ensemble import join_heads
from heads.files.head_file import read_head, read_layers
from heads.files.image_model import Branch, build_image_ensemble, build_image_model, ensemble_metadata
from heads.files.metadata import HeadMetadata
from heads.files.plain_layers import excesses
from search.finish.export_choice import Leaving, groups_of_kind, ways_taken
from search.setup.export_options import ExportOptions


def image_model_of(leaving: Leaving, choice: ExportOptions) -> tuple[Any, HeadMetadata]:
    """Builds a model from image to class of the heads that leave, in which each backbone stands once.

    Args:
        leaving: The heads.
        choice: Says where backbones and weights are, where the heads' files do not.

    Returns:
        The model, and what its file says of it.

    Raises:
        InputError: A backbone's weights are not there, or are others than the heads were trained with.
    """
    heads = {path: read_head(path) for path in leaving.paths}
    branches = []
    for group in groups_of_kind([(path, head.metadata) for path, head in heads.items()]):
        path, metadata = group[0]
        named = NamedBackbone(weights=_weights(metadata, choice.weights), backbone=choice.backbone)
        backbone = rebuild_backbone(path, metadata, backbone_spec(path, metadata, named))
        branches.append(Branch(backbone, [heads[member] for member, _ in group]))
    apart = len(branches) > 1 or len(ways_taken([head.metadata for head in heads.values()])) > 1
    if apart or any(excesses([read_layers(path) for path in heads])):  # too much for one head, not for such a model
        return build_image_ensemble(branches), ensemble_metadata(branches, leaving.temperature)
    (branch,) = branches
    head = branch.heads[0]
    if len(branch.heads) > 1:
        head = join_heads(branch.heads, temperature=leaving.temperature)
    return build_image_model(branch.backbone, head), head.metadata


def _weights(metadata: HeadMetadata, given: str | None) -> str | None:
    """Of several files the one of the name that a head's file says; one alone is taken as it is."""
    files = [name.strip() for name in (given or "").split(",") if name.strip()]
    if len(files) < 2:
        return given
    return next((name for name in files if Path(name).name == metadata.weights), None)
