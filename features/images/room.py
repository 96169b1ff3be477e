"""How much memory the images may take together that are being decoded at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from features.runtime.memory import resident_budget

BYTES_PER_PIXEL = 32
"""What decoding takes: most images 6 to 9, JPEG 2000, WebP and what is transparent 20 to 26, colours of 16 bits 36."""
BYTES_PER_PIXEL_LEFT_OUT = 8
"""What a pixel takes of an image that is decoded at a reduced scale: a progressive JPEG's coefficients are all kept."""


class Room:
    """Lets images be decoded as long as they fit together; one that does not even by itself is decoded alone.

    Args:
        budget: Says how many bytes there are, once the first image comes.
    """

    def __init__(self, budget: Callable[[], int] = resident_budget) -> None:
        self._budget = budget
        self._bytes: int | None = None
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, pixels: int, *, of: int) -> Iterator[None]:
        """Waits until an image fits beside those that are being decoded; within, its memory counts as taken.

        Args:
            pixels: How many there will be.
            of: How many the file has, of which a reduced scale leaves some out.
        """
        wanted = max(pixels * BYTES_PER_PIXEL, of * BYTES_PER_PIXEL_LEFT_OUT)
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + wanted <= self._all())
            self._taken += wanted
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()

    def _all(self) -> int:
        if self._bytes is None:
            self._bytes = self._budget()
        return self._bytes
