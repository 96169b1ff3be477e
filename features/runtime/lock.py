"""One writer a file: a lock that is free again when its process ends, however it ends."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from features.runtime.errors import BottleneckError, InputError

with warnings.catch_warnings():  # where there is no flock it says so, and locks by a file that names its process
    warnings.simplefilter("ignore")
    from filelock import FileLock, Timeout

fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None

_PATIENCE_S = 0.2
"""How long a lock is tried for: ``is_locked`` may hold it, for less than a millisecond."""


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


class WriterLock:
    """The right to write a file, taken when this is made. Use as a context manager, or call ``release``.

    The lock is on a file of its own beside the one that is written, which may not exist yet and may be replaced.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock; makes the folder where there is none.

        Raises:
            InputError: Nothing can be written there.
            BottleneckError: Another process holds the lock.
        """
        self._path = _lock_path(path)
        # Not of one thread: what is taken in one may be released in another.
        self._lock = FileLock(self._path, timeout=_PATIENCE_S, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(poll_interval=0.01)
        except Timeout as error:
            raise BottleneckError(f"{path}: another process is writing it") from error
        except OSError as error:
            raise InputError(path, expected="a place to write to", found=error.strerror) from error

    def release(self) -> None:
        """Gives the lock back and removes its file; may be called twice."""
        if not self._lock.is_locked:
            return
        if fcntl is not None:
            self._path.unlink(missing_ok=True)  # still locked: who opened it meanwhile sees that it is gone
        self._lock.release()
        if os.name == "nt":
            with suppress(OSError):  # the next one has it already
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the ``WriterLock`` of a file. Writes nothing, and lets nobody else's attempt fail."""
    lock = _lock_path(path)
    if fcntl is None:
        return _is_taken(lock)
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, for a moment
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _is_taken(lock: Path) -> bool:
    """The same without ``flock``: tries to take a lock whose file is there."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0, thread_local=False):
            return False
    except (Timeout, OSError):
        return True
