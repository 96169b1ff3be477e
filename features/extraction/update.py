"""A store made that of its images as they are now: rows whose files are the same are taken over, the rest is computed.

The new store is made beside the old one, which stays as it is until the new one is whole and takes its place. So an
update that was killed loses nothing, and goes on when it is run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from features.extraction.changes import Changes
from features.images.content import digest_of
from features.images.folder import ImageTable
from features.images.pages import file_of
from features.runtime.errors import InputError
from features.runtime.files import disk_error
from features.runtime.lock import WriterLock
from features.runtime.portable import sync_folder
from features.store.kind import EIGHT_BITS
from features.store.reader import FeatureStore
from features.store.schema import DIGEST_BYTES, ROW_FIELDS, RowState, StoreHeader
from features.store.source import CHUNK_BYTES, rows_within
from features.store.writer import StoreWriter

_OF_FILES = ("classes", *ROW_FIELDS, "parts")
"""Fields of a header that follow from the images and may be others after an update."""


def side_path(store: Path) -> Path:
    """Where an update makes the store that is to take the place of ``store``."""
    return store.with_name(f".{store.stem}.update{store.suffix}")


def differs(changes: Changes, header: StoreHeader) -> bool:
    """Whether a store made now, as ``header`` says, would be another one."""
    stored, told = changes.store.header.spelled(), header.spelled()
    others = any(getattr(stored, name) != getattr(told, name) for name in _OF_FILES)
    return others or bool(changes.any or changes.doubtful or changes.touched)


def check_same_features(changes: Changes, header: StoreHeader) -> None:
    """Refuses to take rows over from a store of other features.

    Raises:
        InputError: Naming the first field that differs.
    """
    stored = changes.store.header
    same = [*_OF_FILES, *(["intensity"] if stored.intensity == EIGHT_BITS else [])]  # no row of it was scaled
    stored.check_same(changes.store.path, replace(header, **{name: getattr(stored, name) for name in same}))


@contextmanager
def updating(changes: Changes, header: StoreHeader, table: ImageTable) -> Iterator[StoreWriter]:
    """Yields the writer of the store that is to take the old one's place, with all rows in it that can be kept.

    One that an update left which was killed is gone on with, if it is the same still.

    Raises:
        InputError: The old store has other features.
        BottleneckError: The disk is too small for both stores, or another process writes one of them.
    """
    check_same_features(changes, header)
    store = changes.store.path
    side = side_path(store)
    with WriterLock(store):
        if side.exists() and not _is_same(side, header):
            side.unlink()
        with StoreWriter(side, header) as writer:
            _take_over(writer, changes, table)
            yield writer


def take_place(writer: StoreWriter, store: Path) -> None:
    """Puts the finished store where the old one is; who reads the old one goes on reading that.

    Raises:
        BottleneckError: It cannot be put there.
    """
    writer.close()
    try:
        writer.path.replace(store)
        sync_folder(store.parent)
    except OSError as error:
        raise disk_error(store, error) from error


def _is_same(side: Path, header: StoreHeader) -> bool:
    try:
        found = FeatureStore(side).header
        found.check_same(side, header)
    except InputError:
        return False
    return found.modified == header.modified


def _take_over(writer: StoreWriter, changes: Changes, table: ImageTable) -> None:
    old = changes.store
    missing = [new for new in sorted(changes.kept) if writer.done[new] == RowState.PENDING]
    step = rows_within(CHUNK_BYTES, old.header)
    for start in range(0, len(missing), step):
        new = missing[start : start + step]
        rows = np.asarray([changes.kept[row] for row in new])
        if old.contents is not None:
            contents = old.contents[rows]
        else:  # files of the same size, no newer than the store
            digests = b"".join(digest_of(table.folder / file_of(table.paths[row])) for row in new)
            contents = np.frombuffer(digests, np.uint8).reshape(len(new), DIGEST_BYTES)
        writer.write(new, old.take(rows), old.done[rows], contents)
