"""A source whose labels count in the class list of another one: a test store that lacks a class, or sorts them anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.runtime.text import composed, counted, listed, printable
from features.store.schema import Rows
from features.store.source import CHUNK_BYTES, DerivedSource, Features, FeatureSource

_NAMED = 8
"""Classes that a refusal names."""


class RelabelledStore(DerivedSource):
    """Rows of a source, with labels that are indices into another list of classes."""

    def __init__(self, source: FeatureSource, classes: Sequence[str]) -> None:
        """Maps the labels by the classes' names; every class that has rows is in the list."""
        places = {composed(name): index for index, name in enumerate(classes)}  # in whichever Unicode form
        moved = np.array([places.get(composed(name), -1) for name in source.classes], np.int32)
        labels = moved[source.labels]
        assert not len(labels) or labels.min() >= 0, "a class with rows is not in the list"
        labels.setflags(write=False)
        super().__init__(source, replace(source.header, classes=tuple(classes), labels=tuple(labels.tolist())))
        self.labels = labels

    def _taken(self, rows: Rows, views: npt.NDArray[np.int64] | int | None) -> Features:
        """See ``FeatureSource``."""
        return self.source.take(rows, views)

    def chunks(self, limit: int = CHUNK_BYTES) -> Iterator[tuple[int, Features]]:
        """Yields (first row, features with all views) of successive rows; see ``FeatureSource``."""
        return self.source.chunks(limit)


def with_classes(
    source: FeatureSource, classes: Sequence[str], *, known_to: str, hint: str | None = None
) -> FeatureSource:
    """Returns a source with labels that are indices into ``classes``; itself where it has this list already.

    It may lack classes of the list, and have them in another order. Classes of its own that have no row count for
    nothing.

    Args:
        source: The rows.
        classes: Names, in the order of the labels that are wanted.
        known_to: Who knows these classes, for the message.
        hint: What to do where there are others.

    Raises:
        InputError: There are rows of a class that is not in the list; it is named.
    """
    if source.classes == tuple(classes):
        return source
    counts, known = np.bincount(source.labels, minlength=len(source.classes)), {*map(composed, classes)}
    strange = [label for label, name in enumerate(source.classes) if composed(name) not in known and counts[label]]
    if strange:
        told = (f"{printable(source.classes[label])} ({counted(int(counts[label]), 'image')})" for label in strange)
        names = listed(map(printable, classes), _NAMED)
        expected = f"none but those of {known_to}: {names}"
        raise InputError(source.path, field="classes", expected=expected, found=listed(told, _NAMED), hint=hint)
    return RelabelledStore(source, classes)
