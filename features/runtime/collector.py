"""Python's collector of reference cycles, spared what a process holds to its end.

TensorFlow and Keras are a million objects. To look through them for cycles takes half a second and more: while they
are imported, where little is dropped and all is looked through several times, each time a bank makes way for the next,
and once more when Python shuts down, to free what the kernel frees anyway.
"""

from __future__ import annotations

import atexit
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_commanded = threading.Event()
"""Set where this process is a command's: nobody else's objects are in it, of which one could become garbage."""


def end_with_command() -> None:
    """Says that this process runs a command and ends with it: nothing is looked through at its end."""
    if not _commanded.is_set():
        _commanded.set()
        atexit.register(gc.freeze)


@contextmanager
def importing() -> Iterator[None]:
    """Within it nothing is looked through; in a command nothing that is there after the first ever will be."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
    if _commanded.is_set() and not gc.get_freeze_count():
        gc.freeze()
