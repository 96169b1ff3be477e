"""Arguments of heads and of banks that do not fit."""

from __future__ import annotations


def require(name: str, found: object, expected: str, holds: bool) -> None:
    """Raises ValueError, naming the argument, unless a rule for it holds."""
    if not holds:
        raise ValueError(f"{name}: expected {expected}, found {found}")
