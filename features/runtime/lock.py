"""One writer a file: an advisory lock that the kernel frees when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from features.runtime.errors import BottleneckError, InputError


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
        self._path = path.with_name(f".{path.name}.lock")
        self._descriptor = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while self._descriptor < 0:
                self._descriptor = self._acquire()
        except BlockingIOError as error:
            raise BottleneckError(f"{path}: another process is writing it") from error
        except OSError as error:
            raise InputError(path, expected="a place to write to", found=error.strerror) from error

    def _acquire(self) -> int:
        """Returns the descriptor of the locked file, or -1 where its last holder removed it just now."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), self._path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return -1

    def release(self) -> None:
        """Gives the lock back and removes its file; may be called twice."""
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)  # still locked: who opened it meanwhile sees that it is gone
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
