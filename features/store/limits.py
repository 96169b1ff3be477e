"""What a file can hold: looked at before anything is computed for it."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from features.runtime.errors import InputError

MOST_CLASSES = 4_000
"""Class names of a store and of a head: HDF5 keeps an attribute of at most 64 KiB, 16 bytes a name."""


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
