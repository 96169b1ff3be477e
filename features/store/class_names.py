"""What classes are called that are told in an option, or not at all: the article's four names, or numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from features.runtime.errors import InputError
from features.runtime.text import composed, listed, printable
from features.store.limits import why_not_kept

ARTICLE_CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
ARTICLE_SHAPE = (8, 8, 2048)
"""Of the article's bottlenecks: InceptionV3's, of 299 x 299 pixels."""
_NAMED = 8


def class_names(
    given: str | Iterable[str] | None, count: int, *, feature_shape: tuple[int, int, int]
) -> tuple[str, ...]:
    """Returns the class names in label order: those given, composed, the article's four, or ``class-<i>``.

    Args:
        given: The names, or one text of them with commas between; None where they are not told.
        count: How many classes there are.
        feature_shape: Of the bottlenecks: four classes of the article's that are not told are taken for the article's.

    Raises:
        InputError: The names given are not ``count`` different ones.
    """
    if given is None:
        of_article = feature_shape == ARTICLE_SHAPE and count == len(ARTICLE_CLASSES)
        return ARTICLE_CLASSES if of_article else numbered_classes(count)
    names = split_names(given) if isinstance(given, str) else tuple(composed(f"{name}").strip() for name in given)
    if unfit := why_no_names(names, count):
        raise InputError("--classes", expected=unfit[0], found=unfit[1])
    return names


def split_names(text: str) -> tuple[str, ...]:
    """Returns the names that one text has with commas between, composed."""
    return tuple(composed(name).strip() for name in text.split(","))


def why_no_names(names: Sequence[str], count: int | None = None) -> tuple[str, str] | None:
    """Returns what names of classes would have to be, and what they are; None for those that classes can have.

    Args:
        names: In label order, composed: two spellings of one name are no two names.
        count: How many there have to be; None where that is free.
    """
    if not names or not all(names) or len(set(names)) < len(names) or count not in (None, len(names)):
        number = "" if count is None else f"{count} "
        return f"{number}different names, in label order", listed(map(printable, names), _NAMED) or "none"
    return next(filter(None, map(why_not_kept, names)), None)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Returns ``class-0``, ``class-1`` and so on."""
    return tuple(f"class-{label}" for label in range(count))
