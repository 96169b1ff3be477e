"""What the user named in the place of images, before any of it is looked at: texts, or a feature store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from features.runtime.errors import InputError
from features.store.reader import FeatureStore

Image = str | os.PathLike[str]
Images = Image | FeatureStore | Iterable[Image]
"""An image, a folder, an http or https address, or several of these; or a feature store, or its file."""
_EXPECTED = "names of images, folders or addresses, or one feature store"


def listed_images(images: Images) -> list[Image | FeatureStore]:
    """Returns what was named, in order; what can be gone through only once is gone through here.

    Raises:
        InputError: Nothing was named, or what is no name, such as an array of pixels.
    """
    if isinstance(images, str | os.PathLike | FeatureStore):
        named: list[Any] = [images]
    elif isinstance(images, bytes | bytearray | Mapping) or _is_table(images) or not isinstance(images, Iterable):
        raise _refused(images)
    else:
        named = list(images)
    if not named:
        raise InputError("images", expected="at least one", found="none")
    for one in named:
        if isinstance(one, FeatureStore):  # which has a path, and is read by its rows
            if len(named) > 1:
                raise _refused(one)
            continue
        if not isinstance(one, str | os.PathLike) or not isinstance(os.fspath(one), str):
            raise _refused(one)
        if not os.fspath(one):
            raise InputError("images", expected=_EXPECTED, found="an empty name")
    return named


def texts_of(named: Sequence[Image | FeatureStore]) -> list[str]:
    """Returns the names as texts.

    Raises:
        InputError: A store is named where only an image will do.
    """
    for one in named:
        if isinstance(one, FeatureStore):
            raise InputError(one.path, expected="an image", found="a feature store")
    return [os.fspath(one) for one in named if not isinstance(one, FeatureStore)]


def _is_table(images: Any) -> bool:
    """Whether it is an array of pixels or of features, or a table: to go through it would give none of its content."""
    return getattr(images, "ndim", 1) != 1


def _refused(found: Any) -> InputError:
    kind = "a store among others" if isinstance(found, FeatureStore) else type(found).__name__
    return InputError("images", expected=_EXPECTED, found=kind)
