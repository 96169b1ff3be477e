"""Ctrl-C at a moment that suits: the first is noted and heeded between two epochs, the second takes effect at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether the user has asked to stop.

    Attributes:
        asked: True after the first Ctrl-C.
    """

    def __init__(self) -> None:
        self.asked = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def heeding_ctrl_c() -> Iterator[Stop]:
    """Yields a ``Stop`` that notes Ctrl-C while the context lasts; elsewhere than in the main thread nobody asks."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, stop._note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)  # None: not a handler of Python's
