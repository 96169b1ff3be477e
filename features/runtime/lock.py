"""One writer a file: a lock that is free again when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from features.runtime.command import say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import disk_error
from features.runtime.portable import DISK_FULL

with warnings.catch_warnings():  # where there is no flock it says so, and locks by a file that names its process
    warnings.simplefilter("ignore")
    from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout, UnixFileLock

fcntl: Any
try:
    import fcntl
except ImportError:
    fcntl = None

_PATIENCE_S = 0.2
"""How long a lock is tried for: ``is_locked`` may hold it, for less than a millisecond."""
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)
_NO_LOCKS = {
    getattr(errno, name)
    for name in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", "EPERM", "EIO", "EREMOTEIO", "ESTALE")
    if hasattr(errno, name)
}
"""What file systems answer that know no locks, network disks mostly."""


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _marker_path(path: Path) -> Path:
    """The file that stands for a lock where there are none: it names its host and process."""
    return path.with_name(f".{path.name}.held")


class WriterLock:
    """The right to write a file, taken when this is made. Use as a context manager, or call ``release``.

    The lock is on a file of its own beside the one that is written, which may not exist yet and may be replaced. Where
    the file system knows no locks, a file that names its process and host is there for one. It goes with its process,
    or where that was killed with the next one on the same host; of another host's nobody here can tell, so it stays in
    the way until somebody removes it, and is named.

    Whoever removes the folder removes the lock with it, and the next process takes one of its own there: ``check`` says
    so to whoever has held it for long.

    Attributes:
        path: The file that is written.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock; makes the folder where there is none.

        Raises:
            InputError: Nothing can be written there.
            BottleneckError: Another process holds the lock; it is named. Or the disk has no room for it.
        """
        if not path.name:  # the current folder, or the root of all
            raise InputError(path, expected="the name of what is to be made", found="a folder that is there")
        self.path = path
        self._path = _lock_path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _take(path)
            self._taken = Path(self._lock.lock_file).stat()
        except Timeout as error:
            owner = _owner(Path(error.lock_file))
            raise BottleneckError(f"{path}: another process is writing it{owner}") from error
        except OSError as error:
            if error.errno in DISK_FULL:
                raise disk_error(path, error) from error
            raise InputError(path, expected="a place to write to", found=error.strerror) from error

    def check(self) -> None:
        """Makes sure that this lock still keeps others out.

        Raises:
            BottleneckError: Its file was removed, or is another process's by now.
        """
        if not self._is_in_place():
            raise BottleneckError(f"{self.path}: removed, or another process's, since this one began")

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._taken, Path(self._lock.lock_file).stat())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a disk that is away for a moment: who writes hears of it
            return True

    def release(self) -> None:
        """Gives the lock back and removes its file; may be called twice."""
        if not self._lock.is_locked:
            return
        if fcntl is not None and self._is_in_place():
            self._path.unlink(missing_ok=True)  # still locked: who opened it meanwhile sees that it is gone
        self._lock.release()
        if os.name == "nt":
            with suppress(OSError):  # the next one has it already
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _take(path: Path) -> BaseFileLock:
    """Takes the file system's lock, or the marker that stands for it where that has none.

    Raises:
        Timeout: Another process has it.
        OSError: Nothing can be written there.
    """
    # Not of one thread: what is taken in one may be released in another.
    lock = FileLock(_lock_path(path), thread_local=False, fallback_to_soft=False)
    marker = SoftFileLock(_marker_path(path), thread_local=False)
    try:
        lock.acquire(timeout=_PATIENCE_S, poll_interval=0.01)
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
            raise
        marker.acquire(timeout=_PATIENCE_S, poll_interval=0.01)
        _lock_path(path).unlink(missing_ok=True)  # made in vain
        say(f"note: {path.parent}: {error.strerror}: no locks on this disk, {_marker_path(path).name} stands for one")
        return marker
    try:
        if _marker_path(path).exists():  # of a host for which the same disk has no locks
            with marker.acquire(timeout=_PATIENCE_S, poll_interval=0.01):
                pass
        if isinstance(lock, UnixFileLock):  # others say it themselves
            with suppress(OSError):  # a full disk: the lock is taken all the same
                _lock_path(path).write_text(f"{os.getpid()}\n{socket.gethostname()}\n", encoding="utf-8")
    except BaseException:
        if fcntl is not None:
            _lock_path(path).unlink(missing_ok=True)  # as in ``release``
        lock.release()
        raise
    return lock


def _owner(lock: Path) -> str:
    """Who holds a lock, as its file says; empty where it does not."""
    try:
        process, host = lock.read_text(encoding="utf-8", errors="replace").split()[:2]
    except (OSError, ValueError):
        return ""
    told = f" (process {process} on {host})"
    if lock.name.endswith(".held") and host != socket.gethostname():
        told += f"; if that has ended, remove {lock}"
    return told


def is_locked(path: Path) -> bool:
    """Whether a process holds the ``WriterLock`` of a file. Writes nothing, and lets nobody else's attempt fail."""
    lock, marker = _lock_path(path), _marker_path(path)
    if marker.exists():
        return _is_taken(marker)
    if fcntl is None:
        return _is_taken(lock)
    try:
        with lock.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, for a moment
    except OSError as error:
        return error.errno in _TAKEN
    return False


def _is_taken(lock: Path) -> bool:
    """The same without ``flock``: tries to take a lock whose file is there."""
    if not lock.exists():
        return False
    try:
        with SoftFileLock(lock, timeout=0, thread_local=False):
            return False
    except (Timeout, OSError):
        return True
