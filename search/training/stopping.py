"""Ctrl-C and SIGTERM at a moment that suits: the first is heeded between two epochs, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from features.runtime.errors import STOPS


class Stop:
    """Whether somebody has asked to stop: the user by Ctrl-C, or the system by SIGTERM."""

    def __init__(self) -> None:
        self._kind: type[KeyboardInterrupt] | None = None

    @property
    def asked(self) -> bool:
        """True after the first signal."""
        return self._kind is not None

    def take_effect(self) -> None:
        """Does what the signal would have done at once.

        Raises:
            KeyboardInterrupt: Somebody has asked.
        """
        if self._kind is not None:
            raise self._kind

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise STOPS[number]
        self._kind = STOPS[number]


@contextmanager
def heeding_stops() -> Iterator[Stop]:
    """Yields a ``Stop`` that notes both signals while the context lasts; only in the main thread does anybody ask."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heard = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop._note) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not a handler of Python's
