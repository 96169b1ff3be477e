"""Ctrl-C and SIGTERM in long loops: at a moment that suits, or at once and then for certain.

Python raises ``KeyboardInterrupt`` wherever it happens to be. Where that is within TensorFlow's C++ side, which imports
modules and looks at no error, it gets lost, and a search went on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from features.runtime.errors import STOPS


class Stop:
    """Whether somebody has asked to stop: the user by Ctrl-C, or the system by SIGTERM.

    Args:
        at_once: Whether the first signal, too, takes effect at once: see ``heeding_stops``.
        heard: As there.
    """

    def __init__(self, *, at_once: bool, heard: Callable[[bool], None] = lambda again: None) -> None:
        self._at_once = at_once
        self._heard = heard
        self._kind: type[KeyboardInterrupt] | None = None

    @property
    def asked(self) -> bool:
        """True after the first signal."""
        return self._kind is not None

    def take_effect(self) -> None:
        """Does what the signal would have done at once, or has done without being heard.

        Raises:
            KeyboardInterrupt: Somebody has asked.
        """
        if self._kind is not None:
            raise self._kind

    @contextmanager
    def instead_of(self, *errors: type[Exception]) -> Iterator[None]:
        """Where something fails of such errors once somebody has asked to stop, that is what is done.

        Raises:
            KeyboardInterrupt: Somebody has asked.
        """
        try:
            yield
        except errors:
            self.take_effect()
            raise

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self._kind = self.asked, STOPS[number]
        self._heard(again)
        if again or self._at_once:
            raise STOPS[number]


@contextmanager
def heeding_stops(*, at_once: bool = False, heard: Callable[[bool], None] = lambda again: None) -> Iterator[Stop]:
    """Yields a ``Stop`` that notes both signals while the context lasts; only in the main thread does anybody ask.

    Args:
        at_once: Whether signals take effect as they come. Whoever calls ``Stop.take_effect`` now and then hears of one
            that got lost, too. Otherwise the first waits for that call, and the second takes effect at once.
        heard: Called with each signal as it comes, and told whether it is one more: whoever waits for something may
            give up. It is called in the midst of whatever the main thread does, so it takes no locks.
    """
    stop = Stop(at_once=at_once, heard=heard)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heeded = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop._note) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not a handler of Python's
