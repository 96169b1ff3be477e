"""Complete or absent: a file is written under a temporary name, synced, then renamed. And what a full disk says."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from features.runtime.errors import BottleneckError, DiskFullError, InputError
from features.runtime.portable import DISK_FULL, sync_folder

ROOT = Path(__file__).resolve().parents[2]
"""The folder that this project's packages are in."""
_LEFT = re.compile(r"\.(?P<stem>.*)\.[0-9a-f]{8}\.new(?P<suffix>(?:\.[^.]*)?)", re.DOTALL)
"""What ``replacing`` calls a file that several may write."""
_LONG_S = 3600.0
"""Nobody who lives takes so long from the last byte of such a file to its name."""
_NO_TEMPORARY = "No usable temporary directory found"
"""What Python's ``tempfile`` says where there is no folder that it could write to."""
_looked_through: set[Path] = set()


@contextmanager
def replacing(path: Path, *, needed: int = 0, shared: bool = False) -> Iterator[Path]:
    """Yields a temporary path with ``path``'s ending; on leaving, what was written there takes ``path``'s place.

    Two processes that may write the same ``path`` at the same time need a lock (``features.runtime.lock``), or say so.

    Args:
        path: The file to make or to replace.
        needed: Bytes that it will take, for the message where they do not fit; 0 for unknown.
        shared: Whether other processes may be writing it, too: each then has a temporary file of its own, and the last
            one's stays. Who is killed leaves it, where else the next one removes it; the next process that writes into
            the folder an hour later does.

    Raises:
        BottleneckError: The disk is full or the place cannot be written; ``path`` is as it was before.
    """
    temporary = being_written(path, mine=f".{os.urandom(4).hex()}" if shared else "")
    try:
        temporary.unlink(missing_ok=True)  # in a folder from elsewhere it may be a link to any file
        yield temporary
        with temporary.open("r+b") as file:  # to write: Windows flushes no other
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise disk_error(path, error, needed=needed) from error
    except BaseException:
        _remove(temporary)
        raise
    if shared:
        _remove_left(path.parent.absolute())


def _remove(path: Path) -> None:
    """Removes a file or a link where there is one; a disk that may not be written refuses also where there is none."""
    with suppress(OSError):
        path.unlink()


def _remove_left(folder: Path) -> None:
    """Removes what processes that were killed have left of shared files.

    A process looks once: a folder may have many thousand pictures, each of which is such a file.
    """
    if folder in _looked_through:
        return
    _looked_through.add(folder)
    for path, _ in _left_in(folder):
        with suppress(OSError):  # another one removes it, too, or it is another user's
            if time.time() - path.stat().st_mtime > _LONG_S:
                path.unlink()


def left_of(path: Path) -> list[Path]:
    """Returns what processes are writing in place of a shared file, or have left of it where they were killed."""
    return [left for left, name in _left_in(path.parent) if name == path.name]


def _left_in(folder: Path) -> Iterator[tuple[Path, str]]:
    """Temporary files of shared ones, each with the name that it was to take."""
    for path in folder.glob(".*.new*"):
        if found := _LEFT.fullmatch(path.name):
            yield path, f"{found['stem']}{found['suffix']}"


def being_written(path: Path, *, mine: str = "") -> Path:
    """Returns what a file is called while it is written, and where its process was killed then; ``mine`` tells some."""
    return path.with_name(f".{path.stem}{mine}.new{path.suffix}")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """As ``replacing``, for a folder: yields a folder beside it that is not there yet.

    A folder cannot take the place of another in one step: the old one is moved aside first, and back where that step is
    the last one taken. A process that is killed just there leaves it as ``.NAME.old``, and the next one takes it back.

    Args:
        path: The folder to make, or to replace with all that is in it.

    Raises:
        BottleneckError: The disk is full or the place cannot be written; ``path`` is as it was before.
    """
    temporary, aside = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    _remove(temporary)  # a link, through which would be written what nobody asked for
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed, as what lies aside
    try:
        if aside.exists() and not path.exists():
            aside.rename(path)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("r+b") as opened:
                    os.fsync(opened.fileno())
        _move_in(temporary, path, aside)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise disk_error(path, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _move_in(new: Path, path: Path, aside: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    shutil.rmtree(aside, ignore_errors=True)
    try:
        path.rename(aside)
        new.rename(path)
    except BaseException:
        if aside.exists() and not path.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def why_no_file(path: Path) -> str:
    """Returns why there is no file to read, in words; '' where a regular file is there.

    Python's own ``is_file`` raises where a folder may not be looked into, or a name is too long.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # of a name that no file can have
        return "no such file"
    except PermissionError:
        return "no permission to read it"
    except OSError as error:
        return error.strerror or str(error)
    if stat.S_ISREG(mode):
        return ""
    return "a folder" if stat.S_ISDIR(mode) else "no regular file"


def require_file(path: Path, expected: str) -> None:
    """Refuses a path where no file can be read.

    Args:
        path: The file.
        expected: What it has to be, for the message.

    Raises:
        InputError: Saying what is there instead.
    """
    if why := why_no_file(path):
        raise InputError(path, expected=expected, found=why)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yields a folder for temporary files, and removes it on leaving: that it lacks room says nothing of other files.

    Args:
        prefix: What its name begins with.

    Raises:
        BottleneckError: There is no place for it, or no room for what was written into it.
    """
    try:
        made = TemporaryDirectory(prefix=prefix)
    except OSError as error:
        raise no_temporary_folder(error) or disk_error(Path(gettempdir()), error) from error
    with made as folder:
        try:
            yield Path(folder)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise disk_error(Path(gettempdir()), error) from error


def no_temporary_folder(error: OSError) -> BottleneckError | None:
    """Returns what to tell the user where the error is that there is no folder for temporary files; otherwise None."""
    if not isinstance(error, FileNotFoundError) or _NO_TEMPORARY not in str(error):
        return None
    return BottleneckError("no folder for temporary files; set TMPDIR to one that can be written")


def identity(path: Path) -> tuple[int, ...] | None:
    """What tells a file from another one of its name, and from itself once it was changed; None where none is."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def from_here(path: Path, absolute: Path) -> Path:
    """Returns a path as it was given, for messages, while it leads there; absolute once the process works elsewhere.

    Args:
        path: As it was given.
        absolute: What it was when it was given.
    """
    try:
        return path if path.absolute() == absolute else absolute
    except FileNotFoundError:  # where the process works was removed
        return absolute


def disk_error(path: Path, error: OSError, *, needed: int = 0) -> BottleneckError:
    """Returns what to tell the user where writing ``path`` failed; a full disk with what is free and what is needed."""
    if error.errno not in DISK_FULL:
        return BottleneckError(f"{path}: cannot be written: {error.strerror or error}")
    there = next(folder for folder in (path, *path.parents) if folder.is_dir())  # the others may be what had no room
    need = f"{shutil.disk_usage(there).free / 1e6:,.1f} MB free"
    need += f", {needed / 1e6:,.1f} MB needed" if needed else ""
    return DiskFullError.of(error.errno, path, need)


def read_text(path: Path) -> str:
    """Returns the text of a file that people may have edited: UTF-8, with or without the mark that some editors set.

    Raises:
        InputError: It is in another encoding.
        OSError: It cannot be read.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # UTF-32's begins as one of them does
        hint = "save it as UTF-8; PowerShell does with -Encoding utf8"
        raise InputError(path, expected="text in UTF-8", found="UTF-16", hint=hint)
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            path, expected="text in UTF-8", found=f"other bytes in line {line}", hint="save it as UTF-8"
        ) from error


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Writes UTF-8, atomically; ``shared`` as in ``replacing``.

    The name of a file may be no text: its bytes that are none are written as Python escapes them.
    """
    with replacing(path, shared=shared) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, data: Any, *, shared: bool = False) -> None:
    """Writes indented JSON, atomically; ``shared`` as in ``replacing``. NaN is refused: it is no JSON."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n", shared=shared)


def write_array(path: Path, array: Any, *, shared: bool = False) -> None:
    """Writes an array as ``.npy``, atomically; ``shared`` as in ``replacing``.

    By way of memory: into a file NumPy writes by itself, and what fails there has no number to know a full disk by.

    Raises:
        BottleneckError: The disk is full or the place cannot be written; ``path`` is as it was before.
    """
    import numpy as np  # most of who writes files has no arrays

    content = io.BytesIO()
    np.save(content, array)
    with replacing(path, shared=shared) as temporary:
        temporary.write_bytes(content.getvalue())  # no copy, and no view that a kept error holds


def make_folder(folder: Path) -> None:
    """Makes a folder that can be written to.

    Raises:
        InputError: There is a file of that name, or the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(folder, expected="a folder", found="a file") from error
    except OSError as error:
        raise InputError(folder, expected="a folder that can be made", found=error.strerror) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(folder, expected="a folder that can be written to", found="no permission")
