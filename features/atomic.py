"""Complete or absent: a file is written under a temporary name, synced, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.errors import BottleneckError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path with ``path``'s ending; on leaving, what was written there takes ``path``'s place.

    Raises:
        BottleneckError: The disk is full or the place cannot be written; ``path`` is as it was before.
    """
    temporary = path.with_name(f".{path.stem}.new{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BottleneckError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, data: Any) -> None:
    """Writes indented JSON, atomically. NaN is refused: it is no JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
