"""What a file can hold: looked at before anything is computed for it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from features.runtime.errors import InputError
from features.store.schema import WIDEST

MOST_CLASSES = 4_000
"""Class names of a store and of a head: HDF5 keeps an attribute of at most 64 KiB, 16 bytes a name."""
MOST_IN_BATCH = 2**31 - 1
"""Rows in a batch: a number that a file can hold, and more than anybody has."""


_OF_OTHERS = (".npz", ".npy", ".keras", ".csv", ".parquet", ".zip")
"""Endings that say that a file is none of HDF5."""


def require_own_name(path: Path, *, hint: str | None = None) -> None:
    """Refuses to make an HDF5 file under a name that says that it is something else.

    Args:
        path: The file.
        hint: What to do instead, where that is not only to take another name.

    Raises:
        InputError: Its ending is another format's.
    """
    if path.suffix.lower() in _OF_OTHERS:
        raise InputError(path, expected="a name that ends in .h5, as that is what is made", found=path.name, hint=hint)


def require_storable(where: str | PathLike[str], classes: Sequence[str]) -> None:
    """Refuses more classes than a store can name.

    Args:
        where: What has these classes, for the message.
        classes: Their names.

    Raises:
        InputError: There are too many.
    """
    if len(classes) > MOST_CLASSES:
        hint = "join classes, or extract parts of them"
        raise InputError(
            where, field="classes", expected=f"at most {MOST_CLASSES:,}", found=f"{len(classes):,}", hint=hint
        )


def why_not_kept(text: str) -> tuple[str, str] | None:
    """Returns what a text would have to be for a store to keep it, and what it is; None for one that can be kept."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "text in Unicode", "something else"
    if size > WIDEST or "\0" in text:
        return f"text of at most {WIDEST:,} bytes", f"{size:,} bytes" if size > WIDEST else "a zero byte"
    return None


def why_too_large(dtype: str) -> tuple[str, str | None]:
    """Returns what values a dtype can hold, for a refusal of larger ones, and what to do about them, if anything."""
    expected = f"values up to {np.finfo(dtype).max:g}, the largest {dtype}"
    return expected, "keep them as float32: --dtype float32" if dtype == "float16" else None


def rows_in_batch(given: int | None, *, otherwise: int) -> int:
    """Returns how many rows a batch has: what is told, or ``otherwise``.

    Raises:
        InputError: What is told is out of range.
    """
    if given is None:
        return otherwise
    if not 1 <= given <= MOST_IN_BATCH:
        raise InputError("batch_size", expected=f"1 to {MOST_IN_BATCH:,}", found=given)
    return given
