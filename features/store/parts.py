"""What rows may be for, and what people call it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PARTS = ("train", "validation", "test")
"""As a store says it."""
KNOWN_AS: Mapping[str, str] = MappingProxyType(
    {
        "train": "train",
        "training": "train",
        "val": "validation",
        "valid": "validation",
        "validation": "validation",
        "test": "test",
        "testing": "test",
    }
)
"""The part that each name stands for, in whatever case."""


def part_named(text: str) -> str | None:
    """Returns the part that a name stands for; None for a name of none."""
    return KNOWN_AS.get(text.strip().casefold())
