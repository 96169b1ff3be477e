"""What is worth seeing of a head at a glance."""

from __future__ import annotations

from features.runtime.text import printable
from features.store.kind import SQUASH
from heads.files.metadata import HeadMetadata


def facts_of(metadata: HeadMetadata) -> dict[str, str]:
    """Returns what a head says of itself, in a few words by name, safe to print."""
    facts = {
        "classes": ", ".join(metadata.classes),
        "backbone": metadata.backbone,
        "features": " x ".join(map(str, metadata.feature_shape)),
        "views": ", ".join(metadata.views),
    }
    if metadata.image_size:
        squashed = metadata.resize == SQUASH
        facts["image size"] = f"{metadata.image_size}" + ("" if squashed else f" ({metadata.resize})")
    if metadata.study:
        facts["study"] = metadata.study
    if metadata.trial is not None:
        facts["trial"] = str(metadata.trial)
    if metadata.value is not None:
        facts["validation value"] = f"{metadata.value:.4f}"
    return {name: printable(value) for name, value in facts.items()}
