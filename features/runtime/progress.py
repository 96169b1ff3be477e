"""How work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[int, int], object]
"""Called with how much is done and how much there is in all."""


def unwatched(done: int, total: int) -> None:
    """An ``OnProgress`` that tells nobody."""
