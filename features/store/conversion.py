"""Arrays, or the article's layout, to a store, and a store to the article's layout: which of these, the source says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from features.runtime.errors import InputError
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import counted, listed, printable
from features.store.array_files import is_array_file
from features.store.arrays import ArrayFiles, arrays_to_store
from features.store.article import article_to_store, is_article, store_to_article
from features.store.patient_names import remarks_on_words
from features.store.reader import FeatureStore
from features.store.schema import DTYPES

UNKNOWN_PATIENTS = "the patients are unknown, so images of one patient may fall on both sides of a split"


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    paths: str | os.PathLike[str] | None = None,
    patients: str | os.PathLike[str] | None = None,
    parts: str | os.PathLike[str] | None = None,
    classes: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    on_progress: OnProgress = unwatched,
) -> list[str]:
    """Makes a store of arrays in files or of the article's layout; turns a store into that.

    A conversion to a store that was interrupted goes on when it is called again. Arrays that are no files become a
    store by ``FeatureStore.from_arrays``.

    Args:
        source: An ``.npz`` with ``X`` (n, c) or (n, h, w, c), ``y`` (class indices or names), and perhaps ``paths``,
            ``patients``, ``parts`` and ``classes``; or X as ``.npy``; or a file of the article's layout; or a store.
        destination: The store to make; of a store, the file in the article's layout.
        labels: Beside X as ``.npy``: y, as ``.npy``; so are the next three.
        paths: A name of each row.
        patients: The patient of each row.
        parts: ``train``, ``validation`` or ``test`` for each row.
        classes: Class names in label order, joined by commas; else those in the labels, or ``class-0``, ``class-1``,
            ... (of the article's layout with four, the article's).
        dtype: ``float16`` or ``float32``, of the store that is made; else that of the arrays, or float16.
        batch_size: Rows in a batch; else the article's own where that is known, else 100.
        on_progress: Told how many rows of how many are converted.

    Returns:
        What should be known of what was made, a line each: what was not given, and what was left out.

    Raises:
        InputError: The source is none of these or does not fit, an option does not fit it, or the destination is
            another file.
        BottleneckError: The disk is full, or another process writes the destination.
    """
    source, destination = Path(source), Path(destination)
    if dtype not in (None, *DTYPES):
        raise InputError("--dtype", expected=" or ".join(DTYPES), found=dtype)
    told = {"labels": labels, "paths": paths, "patients": patients, "parts": parts}
    beside = {name: Path(path) for name, path in told.items() if path is not None}
    of_arrays = is_array_file(source)
    to_store = of_arrays or is_article(source)
    for option, given in (("--classes", classes), ("--dtype", dtype)):
        if not to_store and given is not None:
            found = "a store, which has its own" if option == "--classes" else "a store: the layout is float32"
            raise InputError(option, expected="a source of arrays or of the article's layout", found=found)
    if beside and not of_arrays:
        raise InputError(f"--{next(iter(beside))}", expected="a source X.npy", found=source)
    if of_arrays:
        files = ArrayFiles(source, classes=classes, **beside)
        arrays_to_store(files.read(), destination, dtype=dtype, batch_size=batch_size, on_progress=on_progress)
        return [*_of_arrays(files, FeatureStore(destination))]
    if to_store:
        kind = dtype or "float16"
        article_to_store(
            source, destination, classes=classes, dtype=kind, batch_size=batch_size, on_progress=on_progress
        )
        return [UNKNOWN_PATIENTS]
    store_to_article(source, destination, batch_size=batch_size, on_progress=on_progress)
    return [*_left_out(FeatureStore(source))]


def _of_arrays(files: ArrayFiles, store: FeatureStore) -> Iterator[str]:
    """Says what was not given, and what was given for nothing."""
    unknown = store.header.patients.count("")
    if unknown == len(store):
        yield UNKNOWN_PATIENTS
    elif unknown:
        yield f"the patient of {counted(unknown, 'row')} is unknown, each of which counts as a patient of its own"
    yield from remarks_on_words(store.header.patients)
    if left_out := files.left_out():
        yield f"left out, as a store has no place for them: {listed(map(printable, left_out), 8)}"


def _left_out(store: FeatureStore) -> Iterator[str]:
    """Says what of a store the article's layout has no place for."""
    skipped, views = len(store) - len(store.usable), len(store.header.views) - 1
    parts = [f"{skipped} skipped rows"] * bool(skipped) + [f"all views but {store.header.views[0]}"] * bool(views)
    parts += ["the parts of its rows"] * bool(store.header.parts)
    parts += ["the basis of its channels"] * (store.header.projection is not None)
    if parts:
        yield f"left out, as the layout has no place for them: {' and '.join(parts)}"
