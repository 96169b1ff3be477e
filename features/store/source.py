"""What reads rows of features: all that the rest needs to know of a store, whatever lies behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from features.runtime.errors import InputError
from features.store.display import facts_of, frame_of, line_of, table_of
from features.store.schema import Rows, RowState, StoreHeader

if TYPE_CHECKING:
    import pandas as pd

Features = npt.NDArray[Any]
"""(rows, height, width, channels), or with all views (rows, views, height, width, channels), in the source's dtype."""
CHUNK_BYTES = 32 * 2**20
"""Upper bound of the features that are held at once where all are gone through (one row at least)."""


class FeatureSource(Protocol):
    """Rows of features, with what is known of each.

    A class that derives from it gives the attributes, ``_taken``, ``chunks`` and ``require_unchanged``, and has all
    else.

    Attributes:
        path: The file, or the first of several: for messages.
        header: What the source says of itself; ``header.shape`` and ``header.dtype`` are those of its features.
        fingerprint: Stands for all that decides the features.
        labels: (rows,) int32, read-only.
        patients: (rows,) text, '' where unknown, read-only.
        done: (rows,) uint8, see ``RowState``, read-only.
        complete: Whether every row is done or skipped.
        contents: (rows, 16) uint8, hash of each row's source file, zeros where unknown; None where all are.
    """

    path: Path
    header: StoreHeader
    fingerprint: str
    labels: npt.NDArray[np.int32]
    patients: npt.NDArray[Any]
    done: npt.NDArray[np.uint8]
    complete: bool
    contents: npt.NDArray[np.uint8] | None = None

    def take(self, rows: npt.ArrayLike, views: npt.ArrayLike | None = None) -> Features:
        """Reads some rows, in the order in which they are asked for.

        Args:
            rows: (n,) row indices, in any order, repeats allowed; or a mask, (rows,) of bool.
            views: The view of all of them, or (n,) the view of each; all views of each where None.

        Returns:
            (n, height, width, channels), with all views (n, views, height, width, channels); a copy.

        Raises:
            InputError: There are no such rows or views, or another number of views than of rows.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            _require_shape(self.path, "rows", chosen, len(self))
            chosen = np.flatnonzero(chosen)
        chosen = _indices(self.path, "rows", chosen, len(self))
        _require_shape(self.path, "rows", chosen, chosen.size)
        if views is None:
            return self._taken(chosen, None)
        each = _indices(self.path, "views", np.asarray(views), len(self.header.views))
        if not each.ndim:
            return self._taken(chosen, int(each))
        _require_shape(self.path, "views", each, len(chosen))
        return self._taken(chosen, each)

    def _taken(self, rows: Rows, views: npt.NDArray[np.int64] | int | None) -> Features:
        """What ``take`` returns, of rows and views that are there; those of each row are an array like ``rows``."""
        ...

    def chunks(self, limit: int = CHUNK_BYTES) -> Iterator[tuple[int, Features]]:
        """Yields (first row, features with all views) of successive rows, in the order of the file.

        Args:
            limit: Upper bound of the bytes that are held at once (one row at least).
        """
        ...

    def require_unchanged(self) -> None:
        """Makes sure that what was read is what was opened: what is made of it is believed only then.

        Raises:
            InputError: The file was written to since. One that has its name by now is another, and does not count.
        """
        ...

    def __len__(self) -> int:
        return len(self.header)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return self.header.classes

    @property
    def content(self) -> str:
        """Hash over the contents of all source files, beside the fingerprint; '' where they are not known."""
        return ""

    @property
    def usable(self) -> Rows:
        """Indices of the rows that have features."""
        return np.flatnonzero(self.done == RowState.DONE)

    def lacking(self, rows: Rows) -> tuple[str, ...]:
        """Returns the names of the classes that none of some rows is of."""
        present = set(np.unique(self.labels[rows]).tolist())
        return tuple(name for label, name in enumerate(self.classes) if label not in present)

    @property
    def identity(self) -> dict[str, str]:
        """What a record keeps to know this source again: ``fingerprint``, and ``content`` where that is known."""
        return {"fingerprint": self.fingerprint} | ({"content": self.content} if self.content else {})

    def check_recorded(self, recorded: Mapping[str, str], of: str) -> None:
        """Refuses this source where a record is of another one. What the record or the source lacks is not compared.

        Args:
            recorded: What ``identity`` was.
            of: Whose record that is, for the message: ``this study was made with``.

        Raises:
            InputError: Naming the fingerprint, or the content: the images were others.
        """
        for name, found in self.identity.items():
            expected = recorded.get(name, found)
            if expected != found:
                hint = "images have changed since: make a new study of it" if name == "content" else None
                told = f"{expected[:16]}, of the store that {of}"
                raise InputError(self.path, field=name, expected=told, found=found[:16], hint=hint)

    def to_frame(self) -> pd.DataFrame:
        """Returns a table with one row per image: ``path``, ``class``, ``patient``, ``state``.

        The patient is '' where unknown; the state is ``done``, ``skipped`` (could not be decoded) or ``pending``.
        """
        return frame_of(self.header, self.done)

    def __repr__(self) -> str:
        return line_of(type(self).__name__, self.path, facts_of(self.header, self.done))

    def _repr_html_(self) -> str:
        return table_of(self.path, facts_of(self.header, self.done))


class DerivedSource(FeatureSource):
    """Rows of a source, read through and told otherwise: the file is the same, and so is all that stands for it.

    A class that derives from it gives ``_taken`` and ``chunks``, and what differs.

    Attributes:
        source: What is read.
    """

    def __init__(self, source: FeatureSource, header: StoreHeader) -> None:
        self.source, self.header = source, header
        self.path, self.fingerprint = source.path, source.fingerprint
        self.labels, self.patients = source.labels, source.patients
        self.done, self.complete = source.done, source.complete
        self.contents = source.contents

    @property
    def content(self) -> str:
        """See ``FeatureSource``."""
        return self.source.content

    def require_unchanged(self) -> None:
        """See ``FeatureSource``."""
        self.source.require_unchanged()


def _indices(path: Path, field: str, given: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Returns row or view numbers from 0 to ``count``; as NumPy has it, negative ones count from the end."""
    if not given.size:
        return np.zeros(given.shape, np.int64)
    within = f"whole numbers below {count}"
    if given.dtype.kind not in "iu":
        raise InputError(path, field=field, expected=within, found=f"values of {given.dtype}")
    least, most = given.min(), given.max()
    if most >= count or least < -count:
        raise InputError(path, field=field, expected=within, found=most if most >= count else least)
    numbers = given.astype(np.int64, copy=False)
    return np.where(numbers < 0, numbers + count, numbers) if least < 0 else numbers


def _require_shape(path: Path, field: str, given: npt.NDArray[Any], count: int) -> None:
    if given.shape != (count,):
        raise InputError(path, field=field, expected=f"an array of shape ({count},)", found=given.shape)


def rows_within(limit: int, header: StoreHeader) -> int:
    """Returns how many rows of a source fit into ``limit`` bytes, one at least."""
    return max(1, limit // header.row_bytes)
