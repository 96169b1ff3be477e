"""What a call had in memory, let go of where it ends early.

A notebook keeps the last error, with it the traceback, and with that whatever each function in it had at hand: of a
search that was stopped its banks and its features, while the next cell goes on with it in what memory is left.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames
from types import TracebackType

from features.runtime.errors import BottleneckError


@contextmanager
def frames_cleared_on_failure() -> Iterator[None]:
    """Where what is within is stopped, or fails as can be expected, what its functions had at hand is let go of.

    What nobody expects keeps it: who looks for the cause wants to see it.
    """
    handled = sys.exception()
    try:
        yield
    except (BottleneckError, KeyboardInterrupt) as error:
        _clear(error, but=handled)
        gc.collect()
        raise


def _clear(error: BaseException, *, but: BaseException | None) -> None:
    """Clears the functions that an error came through, and those of the errors that led to it.

    Args:
        error: The error.
        but: The one that the caller was at when it called: what it came through is the caller's.
    """
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and found is not but and id(found) not in seen:
        seen.add(id(found))
        clear_frames(found.__traceback__)
        _cut(found.__traceback__)
        found = found.__cause__ or found.__context__


def _cut(trace: TracebackType | None) -> None:
    """Ends a traceback above the first function within another one, which keeps what that one had, cleared or not."""
    while trace is not None:
        if trace.tb_next is not None and {*trace.tb_next.tb_frame.f_code.co_freevars} - {"__class__"}:
            trace.tb_next = None
        trace = trace.tb_next
