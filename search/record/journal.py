"""An Optuna journal file with one writer: appended to in memory, brought to disk in batches.

Optuna's own file backend takes a lock, appends, syncs and re-reads for every single operation (0.3 to 2.5 ms each).
A search has one writer, so it needs the lock once and the sync only where a loss would matter; the file stays the
format of ``optuna.storages.journal.JournalFileBackend``, which the dashboard reads while the search runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from optuna.storages.journal import BaseJournalBackend

from features.runtime.errors import InputError
from features.runtime.files import disk_error
from search.setup.file_names import SNAPSHOT_FILE


class _Kept(NamedTuple):
    """What is kept, on disk and not yet: one value, so that a stop finds it as before a flush or as after."""

    size: int
    sha256: hashlib._Hash
    unwritten: list[bytes]


class BufferedJournal(BaseJournalBackend):
    """A journal file of which this process is the only writer."""

    def __init__(self, path: Path, *, keep_bytes: int | None = None) -> None:
        """Opens the file, or makes it; a last line that a killed writer left torn is cut off.

        Args:
            path: The file.
            keep_bytes: Go on after so many bytes. What comes behind is not read, and cut off by the first ``flush``: a
                journal that is closed before, for whatever was found not to fit, is left as it was.

        Raises:
            InputError: A line is damaged, or none ends after ``keep_bytes``.
            BottleneckError: The file cannot be read or written.
        """
        self.path = path
        try:
            content = path.read_bytes() if path.exists() else b""
            kept = content[: content.rfind(b"\n") + 1] if keep_bytes is None else _first(path, content, keep_bytes)
            self._logs = _read(path, kept)
            self._file = path.open("ab", buffering=0)
            if keep_bytes is None and len(kept) < len(content):
                self._file.truncate(len(kept))
        except OSError as error:
            raise disk_error(path, error) from error
        self._first = 0  # log number of self._logs[0]: what was read once is not kept
        self._kept = _Kept(len(kept), hashlib.sha256(kept), [])
        self._is_longer = keep_bytes is not None and len(kept) < len(content)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Returns the operations from a number on. The storage reads each one once, so earlier ones are let go."""
        self._logs = self._logs[log_number_from - self._first :]
        self._first = log_number_from
        return list(self._logs)

    def begin_anew(self) -> None:
        """Forgets everything; the file follows with the next ``flush`` that has something to write."""
        self._logs, self._first = [], 0
        self._kept = _Kept(0, hashlib.sha256(), [])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Takes operations in; ``flush`` brings them to disk."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        self._kept.unwritten.extend(lines)
        self._logs += [json.loads(line) for line in lines]  # as a reader of the file would see them

    def flush(self) -> None:
        """Writes and syncs all that was appended, once: what is not to be kept is cut off first.

        That is what an attempt that failed left behind, too.

        Raises:
            BottleneckError: The disk is full or failed.
        """
        size, sha256, unwritten = self._kept
        if not unwritten and not self._is_longer:
            return
        content = b"".join(unwritten)
        try:
            if os.fstat(self._file.fileno()).st_size != size:
                self._file.truncate(size)
            self._is_longer = False
            _write_all(self._file, content)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_error(self.path, error) from error
        hashed = sha256.copy()
        hashed.update(content)
        self._kept = _Kept(size + len(content), hashed, [])

    def size(self) -> int:
        """Bytes on disk, of those that are kept."""
        return self._kept.size

    def sha256(self) -> str:
        """The hash of these bytes."""
        return self._kept.sha256.hexdigest()

    def __reduce__(self) -> NoReturn:
        """Refused: a copy would be a second writer of the same file."""
        raise TypeError(f"{self.path}: a journal has one writer, so it is not pickled; open it in the other process")

    def close(self) -> None:
        """Flushes and closes; drops what was appended where something was to be cut off and nothing was flushed yet.

        Raises:
            BottleneckError: The disk is full or failed; the file is closed, and holds what was flushed before.
        """
        try:
            if not self._is_longer:
                self.flush()
        finally:
            self._file.close()


def _write_all(file: FileIO, content: bytes) -> None:
    """Writes bytes to an unbuffered file, which may take less than all of them at once."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _first(path: Path, content: bytes, size: int) -> bytes:
    """The bytes of a journal that a snapshot goes with."""
    hint = f"remove the {SNAPSHOT_FILE} beside it to begin the running trials again"
    if len(content) < size:
        expected = f"at least the {size} bytes that the snapshot goes with"
        raise InputError(path, expected=expected, found=len(content), hint=hint)
    if size and content[size - 1 : size] != b"\n":
        expected = f"a line that ends after the {size} bytes that the snapshot goes with"
        raise InputError(path, expected=expected, found="one that goes on", hint=hint)
    return content[:size]


def _read(path: Path, content: bytes) -> list[dict[str, Any]]:
    """Reads all lines: Optuna's own reader passes over a damaged last one, and whoever appends would bury it."""
    lines = content.split(b"\n")[:-1]
    logs: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            log = json.loads(line)
            if not isinstance(log, dict):
                raise ValueError("no operation")
        except (ValueError, RecursionError) as error:
            found = f"a damaged line, {number} of {len(lines)} ({error})"
            hint = "it is the last one: remove it to go on without what it said" if number == len(lines) else None
            raise InputError(path, expected="an Optuna journal", found=found, hint=hint) from error
        logs.append(log)
    return logs
