"""What classes are called that are told in an option, or not at all: the article's four names, or numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from features.runtime.errors import InputError
from features.runtime.text import printable
from features.store.limits import why_not_kept

ARTICLE_CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
ARTICLE_SHAPE = (8, 8, 2048)
"""Of the article's bottlenecks: InceptionV3's, of 299 x 299 pixels."""


def class_names(given: str | Iterable[str] | None, count: int, *, of_article: bool = True) -> tuple[str, ...]:
    """Returns the class names in label order: those given, the article's four, or ``class-<i>``.

    Args:
        given: The names, or one text of them with commas between; None where they are not told.
        count: How many classes there are.
        of_article: Whether four classes that are not told are the article's.

    Raises:
        InputError: The names given are not ``count`` different ones.
    """
    if given is None:
        return ARTICLE_CLASSES if of_article and count == len(ARTICLE_CLASSES) else numbered_classes(count)
    listed: list[Any] = given.split(",") if isinstance(given, str) else [*given]
    names = tuple(f"{name}".strip() for name in listed)
    if len(names) != count or len(set(names)) != count or not all(names):
        expected = f"{count} different names, in label order"
        raise InputError("--classes", expected=expected, found=printable(",".join(names)) or "none")
    if unfit := next(filter(None, map(why_not_kept, names)), None):
        raise InputError("--classes", expected=unfit[0], found=unfit[1])
    return names


def numbered_classes(count: int) -> tuple[str, ...]:
    """Returns ``class-0``, ``class-1`` and so on."""
    return tuple(f"class-{label}" for label in range(count))
