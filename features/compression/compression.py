"""A store to one of fewer channels, in one pass and bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.compression.directions import default_training_rows, principal_directions, require_channels
from features.runtime.ahead import ahead
from features.runtime.errors import InputError
from features.runtime.progress import OnProgress, unwatched
from features.store.projected import ProjectedStore
from features.store.projection import Projection
from features.store.reader import FeatureStore
from features.store.schema import Rows, RowState, StoreHeader
from features.store.source import CHUNK_BYTES
from features.store.writer import StoreWriter

_ALIKE = 0.01
"""Of the largest value: rows of one source, projected on two machines, differ by far less."""


@dataclass(frozen=True)
class Compressed:
    """What a compression did.

    Attributes:
        path: The store that was made.
        projection: Its basis.
        rows: Rows whose maps the basis was made for.
        by_split: Whether these are the training rows of a search with one validation part; else all usable ones.
        share: Share of the sum of squares of these maps that it holds; None where the basis was there already.
        written: Rows that this run wrote.
    """

    path: Path
    projection: Projection
    rows: int
    by_split: bool
    share: float | None
    written: int


def compress_store(
    source: Path,
    destination: Path,
    *,
    channels: int,
    on_basis: OnProgress = unwatched,
    on_progress: OnProgress = unwatched,
) -> Compressed:
    """Makes a store of a store's strongest directions, or goes on with one that was left unfinished.

    Args:
        source: A finished store of all channels.
        destination: The store to make; where it is there already, it must be the one that this would make.
        channels: Channels to keep.
        on_basis: Told how many of the rows that decide the directions have been read.
        on_progress: Told how many rows are there.

    Raises:
        InputError: The source is unfinished, compressed already or has fewer channels, the destination is another file,
            or values are too large for the source's dtype.
        BottleneckError: The disk is full, or another process writes the destination.
    """
    store = FeatureStore(source)
    store.require_complete()
    require_channels(store, channels)
    if destination.exists() and destination.samefile(source):
        raise InputError(destination, expected="another file than the source", found="the same")
    split = default_training_rows(store)
    rows = store.usable if split is None else split
    share = None
    projection = _kept_projection(destination, store, channels)
    if projection is None:
        directions = principal_directions(store, rows, on_progress=on_basis)
        projection, share = directions.first(channels), float(directions.shares[channels - 1])
    with StoreWriter(destination, _header(store, projection)) as writer, writer.filling():
        written = _fill(writer, ProjectedStore(store, projection), store, on_progress)
    return Compressed(destination, projection, len(rows), split is not None, share, written)


def _kept_projection(path: Path, store: FeatureStore, channels: int) -> Projection | None:
    """The basis of a store that is there already, if it may be the one to make: an interruption changes no number.

    Raises:
        InputError: There is another file.
    """
    if not path.exists():
        return None
    found = FeatureStore(path).header.projection
    if found is None or found.compressed_from != store.fingerprint:
        told = "one that is not compressed" if found is None else f"one of {found.compressed_from[:16]}"
        expected = f"no such file, or the store compressed from {store.path}, fingerprint {store.fingerprint[:16]}"
        raise InputError(path, expected=expected, found=told, hint="choose another OUT, or remove this one")
    if found.kept != channels:
        raise InputError(path, field="channels", expected=f"{channels}", found=found.kept, hint="choose another OUT")
    return found


def _header(store: FeatureStore, projection: Projection) -> StoreHeader:
    height, width, _ = store.header.feature_shape
    modified = () if store.contents is None else store.header.modified
    return replace(
        store.header, feature_shape=(height, width, projection.kept), projection=projection, modified=modified
    )


def _fill(writer: StoreWriter, projected: ProjectedStore, store: FeatureStore, on_progress: OnProgress) -> int:
    """Writes the rows that are not there; those that are must be the source's, as far as that can be told."""
    made = FeatureStore(writer.path)
    settled, known = writer.done != RowState.PENDING, False
    if store.contents is not None and made.contents is not None:
        known = True
        _require_same(writer.path, "contents", bool(np.all((made.contents == store.contents)[settled])))
    if settled.all() and known:
        on_progress(len(store), len(store))
        writer.finish()
        return 0
    written = 0
    for start, features in ahead(projected.chunks(CHUNK_BYTES)):
        inside = slice(start, start + len(features))
        there = settled[inside]
        if not known:
            both = made.take(start + np.flatnonzero(there)), features[there]
            mine, theirs = (some.astype(np.float32) for some in both)
            near = not there.any() or float(np.abs(mine - theirs).max()) <= _ALIKE * float(np.abs(theirs).max())
            _require_same(writer.path, "features", near)
        if not there.all():
            rows: Rows = np.flatnonzero(~there)
            contents = None if store.contents is None else store.contents[inside][rows]
            writer.write((start + rows).tolist(), features[rows], store.done[inside][rows], contents)
            written += len(rows)
        on_progress(inside.stop, len(store))
    writer.finish()
    return written


def _require_same(path: Path, field: str, same: bool) -> None:
    if not same:
        hint = "the source is another one now: choose another OUT, or remove this one"
        raise InputError(path, field=field, expected="those of the source", found="others", hint=hint)
