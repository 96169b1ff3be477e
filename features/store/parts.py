"""What rows may be for, and what people call it."""

from __future__ import annotations

import re
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
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def part_named(text: str) -> str | None:
    """Returns the part that a name stands for; None for a name of none."""
    return KNOWN_AS.get(text.strip().casefold())


def words_of(text: str) -> frozenset[str]:
    """Returns the words of a folder's name in lower case, a ``set`` at the end of one left off: ``01_TrainSet``."""
    return frozenset(word.lower().removesuffix("set") for word in _WORD.findall(text))


def part_within(text: str) -> str | None:
    """Returns the one part that words of a name stand for, as in ``training_set``; None where that is none or two."""
    found = {KNOWN_AS[word] for word in words_of(text) if word in KNOWN_AS}
    return found.pop() if len(found) == 1 else None
