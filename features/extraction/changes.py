"""What has become of the images of a store: which files are others now, and which rows can be kept.

A file of the same path and size that was written at the same time is taken for the same; where the time is another one,
its content decides, by the hash that the store has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from features.images.content import UNKNOWN, digest_of
from features.images.folder import ImageTable
from features.images.pages import file_of
from features.runtime.errors import InputError
from features.runtime.portable import cpu_count
from features.runtime.text import counted, listed, printable, utc_seconds
from features.store.reader import FeatureStore
from features.store.schema import RowState

_MANY = 1000
"""Files that are read without a word."""
_NAMED = 3
"""How many of the files a refusal names, of each kind."""


@dataclass(frozen=True)
class Changes:
    """An image folder against the store that was made of it.

    Attributes:
        store: The store as it was when they were compared.
        kept: Row of the store by row of the table: settled, and its file is the same.
        changed: Paths of files that are others now.
        resized: Whether one of them has another size.
        doubtful: Paths of files that are newer than a store which has no hashes to tell whether they changed.
        added: Paths that the store has not.
        gone: Paths that only the store has.
        touched: Number of files that were written at another time and hold the same.
    """

    store: FeatureStore
    kept: dict[int, int]
    changed: tuple[str, ...]
    resized: bool
    doubtful: tuple[str, ...]
    added: tuple[str, ...]
    gone: tuple[str, ...]
    touched: int

    @property
    def any(self) -> bool:
        """Whether the store is not that of the images as they are, as far as can be told."""
        return bool(self.changed or self.added or self.gone)

    def remarks(self, *, update: bool) -> Iterator[str]:
        """Yields what is not certain, or worth knowing, about a store that is gone on with or updated."""
        if update:
            room = self.store.path.stat().st_size / 1e6
            yield f"the new store is made beside the old one: some {room:,.1f} MB of room are needed until it is whole"
            return
        if self.touched:
            yield f"{counted(self.touched, 'image')} of another time than the store says hold the same as before"
        if self.doubtful:
            yield (
                f"{counted(len(self.doubtful), 'image')} newer than the store, which has no hashes to tell whether they"
                f" changed ({listed(map(printable, self.doubtful), _NAMED)}): --update computes them anew"
            )

    def refuse(self, folder: Path) -> None:
        """Refuses to go on with a store that is not that of the images as they are.

        Raises:
            InputError: There are changes; with their numbers, the first of each kind by name.
        """
        if not self.any:
            return
        kinds = (("changed since", self.changed), ("added", self.added), ("gone", self.gone))
        found = [
            f"{counted(len(paths), 'image')} {what} ({listed(map(printable, paths), _NAMED)})"
            for what, paths in kinds
            if paths
        ]
        settled = sum(state != RowState.PENDING for state in self.store.done.tolist())
        hint = f"--update makes the store that of the images as they are, and keeps {len(self.kept)} of {settled} rows"
        raise InputError(
            self.store.path,
            field="paths" if self.added or self.gone else "sizes" if self.resized else "contents",
            expected=f"the store of the images in {folder} as they are",
            found=", ".join(found),
            hint=hint if self.kept else "choose another store: this one is of other images",
        )


def find_changes(
    store: FeatureStore,
    table: ImageTable,
    *,
    say: Callable[[str], object] = lambda line: None,
    retry: Callable[[str], bool] | None = None,
) -> Changes:
    """Compares a store with the images that it is to be made of.

    A file is read where it was written at another time than the store says; and one that the store could not read.

    Args:
        store: The store, finished or not.
        table: The images as they are.
        say: Told how many files are to be read, which may take its time.
        retry: Says of the path of an image that could not be decoded whether it can be now: then it counts as changed.
    """
    rows = {path: row for row, path in enumerate(store.header.paths)}
    present = set(table.paths)
    both = [(new, rows[path]) for new, path in enumerate(table.paths) if path in rows]
    same_size = [(new, old) for new, old in both if table.sizes[new] == store.header.sizes[old]]
    if store.contents is None:
        other, touched = _by_time(store, table, same_size), 0
    else:
        other, touched = _by_content(store, table, same_size, say)
    if retry is None:
        again = set()
    else:
        skipped = [new for new, old in same_size if store.done[old] == RowState.SKIPPED]
        again = {new for new in skipped if new not in other and retry(table.paths[new])}
    changed = tuple(
        table.paths[new]
        for new, old in both
        if new in again or table.sizes[new] != store.header.sizes[old] or (new in other and store.contents is not None)
    )
    settled = [(new, old) for new, old in same_size if store.done[old] != RowState.PENDING]
    return Changes(
        store=store,
        kept={new: old for new, old in settled if new not in other and new not in again},
        changed=changed,
        resized=len(same_size) < len(both),
        doubtful=() if store.contents is not None else tuple(table.paths[new] for new in sorted(other)),
        added=tuple(path for path in table.paths if path not in rows),
        gone=tuple(path for path in store.header.paths if path not in present),
        touched=touched,
    )


def _by_content(
    store: FeatureStore, table: ImageTable, pairs: list[tuple[int, int]], say: Callable[[str], object]
) -> tuple[set[int], int]:
    """Rows of the table whose file holds something else than the store's row was made of; and how many do not.

    Rows that are pending were made of nothing yet.
    """
    assert store.contents is not None
    digests = {old: store.contents[old].tobytes() for _, old in pairs if store.done[old] != RowState.PENDING}
    times = store.header.modified
    read = [
        (new, old)
        for new, old in pairs
        if old in digests and (not times[old] or table.modified[new] != times[old] or digests[old] == UNKNOWN)
    ]
    file = {new: file_of(table.paths[new]) for new, _ in read}
    files = [*dict.fromkeys(file.values())]  # of many pages each once
    if len(files) > _MANY:
        say(f"note: {len(files):,} files are of another time than the store says: their contents are compared")
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="hash") as pool:
        found = dict(zip(files, pool.map(lambda name: digest_of(table.folder / name), files), strict=True))
    other = {new for new, old in read if found[file[new]] != digests[old]}
    return other, sum(new not in other and table.modified[new] != times[old] for new, old in read)


def _by_time(store: FeatureStore, table: ImageTable, pairs: list[tuple[int, int]]) -> set[int]:
    """Rows of the table whose file was written after all files of a store that has no hashes."""
    newest = utc_seconds(store.header.created)
    if newest is None:
        return set()
    settled = (new for new, old in pairs if store.done[old] != RowState.PENDING)
    return {new for new in settled if table.modified[new] // 10**9 > newest}
