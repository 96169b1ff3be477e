"""Ctrl-C while a command still imports what it needs: nothing has begun, so a word ends it instead of a traceback."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from itertools import pairwise
from types import FrameType

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the signal's number, as shells have it."""


def end_if_interrupted(package: str) -> None:
    """Lets Ctrl-C end this process at once, if it is ``python -m`` of one of a package's modules, until it has started.

    Elsewhere, where a program imports the package, nothing changes.

    Args:
        package: Its ``__name__``.
    """
    # While ``python -m`` looks for its module, and imports the package for that, '-m' stands for its name.
    mine = any(option == "-m" and module.startswith(f"{package}.") for option, module in pairwise(sys.orig_argv))
    if mine and sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def has_started() -> None:
    """From here on Ctrl-C raises ``KeyboardInterrupt``, as ever."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)
