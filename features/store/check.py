"""A store described, and held against itself."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from features.hdf5.door import opened
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import listed, numbered
from features.store.projection import DATASET, SOURCE, Projection
from features.store.reader import FeatureStore
from features.store.schema import ARRAYS, EXPECTED, SCHEMA, RowState, read_header
from features.store.source import CHUNK_BYTES

LISTED = 10
"""Rows named in a problem, or pairs of images shown, before the rest is only counted."""


def describe(store: FeatureStore) -> dict[str, Any]:
    """Returns what the store says of itself, as JSON types; reads no features.

    The store may be unfinished, and may be written while it is described.
    """
    header = store.header
    states = Counter(store.done.tolist())
    counts = np.bincount(store.labels, minlength=len(header.classes))
    known = [(patient, label) for patient, label in zip(header.patients, header.labels, strict=True) if patient]
    classes_of = defaultdict(set)
    for patient, label in known:
        classes_of[patient].add(label)
    return {
        "schema": SCHEMA,
        "rows": len(store),
        "done": states[RowState.DONE],
        "skipped": states[RowState.SKIPPED],
        "pending": states[RowState.PENDING],
        "complete": store.complete,
        "classes": dict(zip(header.classes, counts.tolist(), strict=True)),
        "patients": {
            "rows_known": len(known),
            "number": len(classes_of),
            "in_several_classes": sum(len(labels) > 1 for labels in classes_of.values()),
        },
        "views": list(header.views),
        **header.origin,
        "pages": header.pages,
        "shape": list(header.shape),
        "dtype": header.dtype,
        "batch_size": header.batch_size,
        "bytes": store.path.stat().st_size,
        "fingerprint": store.fingerprint,
        "content": store.content or None,
        "created": header.created,
        "versions": header.versions,
        **_compression(header.projection),
        **({ARRAYS: header.arrays_sha256} if header.arrays_sha256 else {}),
    }


def _compression(projection: Projection | None) -> dict[str, Any]:
    if projection is None:
        return {}
    return {SOURCE: projection.compressed_from, "channels": projection.channels, DATASET: projection.digest}


def find_problems(store: FeatureStore, *, features: bool = True, on_progress: OnProgress = unwatched) -> list[str]:
    """Checks a store against itself.

    That labels are in range and the file is long enough was checked when it was opened.

    Args:
        store: The store, finished or not.
        features: Whether to read every bottleneck too (bounded memory, whatever the store's size).
        on_progress: Told how many rows of how many are checked.

    Returns:
        One line for each problem: the field, what was expected, what was found. Empty for a sound store.
    """
    problems = list(_header_problems(store))
    if features:
        problems += _feature_problems(store, on_progress)
    return problems


def _header_problems(store: FeatureStore) -> Iterator[str]:
    with opened(store.path, EXPECTED) as file:  # names as they are written: the store's own header has them composed
        written = read_header(store.path, file)
    recomputed = written.fingerprint
    if recomputed != store.fingerprint:
        yield f"fingerprint: expected {recomputed} from the contents, found {store.fingerprint}"
    if written.projection is not None and written.projection.compressed_from != written.of_backbone.fingerprint:
        found = written.projection.compressed_from
        yield f"{SOURCE}: expected {written.of_backbone.fingerprint} from the contents, found {found}"
    pending = np.count_nonzero(store.done == RowState.PENDING)
    # The reverse, all rows settled but not marked complete, is the moment before a writer's last act: no damage.
    if store.complete and pending:
        yield f"complete: expected every row done or skipped, found {pending} pending"
    unknown = np.flatnonzero(store.done > max(RowState))
    if len(unknown):
        yield f"done: expected 0, 1 or 2, found {store.done[unknown[0]]} in {_rows(unknown)}"
    if store.contents is not None:
        unhashed = np.flatnonzero((store.done == RowState.DONE) & ~store.contents.any(axis=1))
        if len(unhashed):
            yield f"contents: expected a hash in every row that is done, found zeros in {_rows(unhashed)}"
    path, times = Counter(store.header.paths).most_common(1)[0]
    if times > 1:
        yield f"paths: expected every file once, found {path} {times} times"


def _feature_problems(store: FeatureStore, on_progress: OnProgress) -> list[str]:
    """Reads all rows that are settled, in file order, and names those whose features cannot be right."""
    not_finite: list[int] = []
    all_zero: list[int] = []
    not_zero: list[int] = []
    of_arrays = store.header.arrays_sha256 and store.header.projection is None and store.complete
    digest = hashlib.sha256()
    on_progress(0, len(store))
    for start, features in store.chunks(CHUNK_BYTES):
        chunk = features.reshape(*features.shape[:2], -1)  # (rows, views, values)
        if of_arrays:
            digest.update(features.reshape(-1).view(np.uint8).data)
        rows = np.arange(start, start + len(chunk))
        done, skipped = (store.done[rows] == state for state in (RowState.DONE, RowState.SKIPPED))
        finite = np.isfinite(chunk).all(axis=(1, 2))
        filled = (chunk != 0).any(axis=2)
        not_finite += rows[done & ~finite].tolist()
        all_zero += rows[done & ~filled.all(axis=1)].tolist()
        not_zero += rows[skipped & filled.any(axis=1)].tolist()
        on_progress(start + len(chunk), len(store))
    found = (
        ("finite values in every row that is done", "others", not_finite),
        ("every row that is done to hold features in every view", "zeros only", all_zero),
        ("zeros in every row that was skipped", "others", not_zero),
    )
    problems = [f"features: expected {rule}, found {what} in {_rows(rows)}" for rule, what, rows in found if rows]
    if of_arrays and digest.hexdigest() != store.header.arrays_sha256:
        problems.append(
            f"{ARRAYS}: expected {digest.hexdigest()} from the features, found {store.header.arrays_sha256}"
        )
    return problems


def _rows(rows: Iterable[int]) -> str:
    numbers = [*rows]
    return f"{numbered(len(numbers), 'row')} {listed(numbers, LISTED)}"
