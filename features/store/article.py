"""The article's layout, to a feature store and back.

The article keeps one dataset for each batch: ``features-<i>`` (n, height, width, channels) float32, ``labels-<i>``
(n, classes) one-hot, and ``batches``, their number.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from features.hdf5.door import open_checked, opened, reading
from features.hdf5.values import inner_dataset
from features.runtime.arithmetic import with_default_errstate
from features.runtime.errors import InputError
from features.runtime.files import replacing
from features.runtime.lock import WriterLock
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import utc_text
from features.store.class_names import class_names
from features.store.contiguous import allocated, declare, write_at
from features.store.kind import UNKNOWN
from features.store.limits import require_own_name, require_storable, rows_in_batch, why_too_large
from features.store.reader import FeatureStore
from features.store.schema import Rows, RowState, StoreHeader
from features.store.source import CHUNK_BYTES
from features.store.writer import StoreWriter

ARTICLE_BATCH = 100
LAYOUTS = "a feature store, or the article's layout (features-<i>, labels-<i>, batches)"


class ArticleFile:
    """A file of the article's layout, checked, and read as if it were one array. Use as a context manager.

    Attributes:
        path: The file.
        labels: (rows,) class index of each row.
        label_count: Number of classes.
        starts: (batches + 1,) first row of each batch, and the number of rows.
        feature_shape: (height, width, channels).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file and checks every batch's shape and labels; reads no features.

        Raises:
            InputError: Something is missing or malformed; the dataset is named.
        """
        self.path = Path(path)
        self._file = open_checked(self.path, LAYOUTS)
        try:
            with reading(self.path, LAYOUTS):
                batches = _batch_count(self.path, self._file)
                first = self._dataset("features-0").shape
                one_hot = [self._check_batch(number, first) for number in range(batches)]
        except BaseException:
            self._file.close()
            raise
        self.feature_shape: tuple[int, int, int] = first[1:]
        self.label_count = one_hot[0].shape[1]
        self.labels: npt.NDArray[np.int32] = np.concatenate(one_hot).argmax(axis=1).astype(np.int32)
        self.starts = np.cumsum([0] + [len(labels) for labels in one_hot])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _dataset(self, name: str) -> Any:
        dataset = inner_dataset(self.path, self._file, name, expected="a dataset of that name")
        kinds = "f" if name.startswith("features") else "biuf"
        if dataset.dtype.kind not in kinds:
            raise InputError(self.path, field=name, expected="float32", found=dataset.dtype)
        return dataset

    def _check_batch(self, number: int, first: tuple[int, ...]) -> npt.NDArray[Any]:
        """Returns the batch's labels, (rows, classes), once it is known to be well formed."""
        features, labels = self._dataset(f"features-{number}"), self._dataset(f"labels-{number}")
        shape = features.shape
        if len(shape) != 4 or not all(shape):
            expected = "shape (rows, height, width, channels)"
            raise InputError(self.path, field=f"features-{number}", expected=expected, found=shape)
        if shape[1:] != first[1:]:
            expected = f"shape (rows, {', '.join(map(str, first[1:]))}) as in features-0"
            raise InputError(self.path, field=f"features-{number}", expected=expected, found=shape)
        classes = self._dataset("labels-0").shape[1:]
        if len(classes) != 1 or not all(classes) or labels.shape != (shape[0], *classes):
            expected = f"shape ({shape[0]}, {classes[0] if classes else 'classes'})"
            raise InputError(self.path, field=f"labels-{number}", expected=expected, found=labels.shape)
        values: npt.NDArray[Any] = labels[:]
        wrong = np.flatnonzero(((values == 1).sum(axis=1) != 1) | ((values != 0).sum(axis=1) != 1))
        if len(wrong):
            row = int(wrong[0])
            found = f"{values[row].tolist()} in row {row}"
            raise InputError(self.path, field=f"labels-{number}", expected="one-hot labels", found=found)
        return values

    def read(self, rows: range, dtype: str) -> npt.NDArray[Any]:
        """Returns the features of successive rows, (rows, height, width, channels), from the batches they lie in.

        Raises:
            InputError: A value is not finite, or too large for ``dtype``; or it cannot be read.
        """
        parts = []
        first = int(np.searchsorted(self.starts, rows.start, side="right")) - 1
        for number in range(first, len(self.starts) - 1):
            start, stop = self.starts[number], self.starts[number + 1]
            if start >= rows.stop:
                break
            inside = slice(max(rows.start, start) - start, min(rows.stop, stop) - start)
            parts.append(self._read_part(f"features-{number}", inside, dtype))
        return np.concatenate(parts)

    def _read_part(self, name: str, rows: slice, dtype: str) -> npt.NDArray[Any]:
        with reading(self.path, LAYOUTS):
            values: npt.NDArray[Any] = self._file[name][rows]
        if not np.isfinite(values).all():
            raise InputError(self.path, field=name, expected="finite values", found="NaN or infinity")
        with np.errstate(over="ignore"):
            cast = values.astype(dtype)
        if not np.isfinite(cast).all():
            expected, hint = why_too_large(dtype)
            raise InputError(self.path, field=name, expected=expected, found=f"{np.abs(values).max():g}", hint=hint)
        return cast


def _batch_count(path: Path, file: Any) -> int:
    """Returns ``batches``, which the article's script writes last."""
    numbers = [int(name.removeprefix("features-")) for name in file if re.fullmatch(r"features-\d{1,9}", name)]
    if "batches" not in file:
        found = f"none beside {len(numbers)} batches of features: the extraction did not end"
        raise InputError(path, field="batches", expected="the number of batches", found=found)
    dataset = inner_dataset(path, file, "batches", expected="the number of batches")
    if dataset.shape != () or dataset.dtype.kind not in "iu" or dataset[()] < 1:
        found = dataset[()] if dataset.shape == () else f"shape {dataset.shape}"
        raise InputError(path, field="batches", expected="one whole number of at least 1", found=found)
    batches = int(dataset[()])
    if numbers and max(numbers) >= batches:
        found = f"features-{max(numbers)} too"
        raise InputError(path, field="batches", expected=f"features-0 to features-{batches - 1}", found=found)
    return batches


def is_article(path: Path) -> bool:
    """Tells the article's layout (True) from a feature store (False).

    Raises:
        InputError: It is neither, or no file that HDF5 can read.
    """
    with opened(path, LAYOUTS) as file:
        if "schema" in file.attrs:
            return False
        if "batches" in file or "features-0" in file:
            return True
        found = f"a file with {', '.join(list(file)[:5]) or 'no datasets'}"
    raise InputError(path, expected=LAYOUTS, found=found)


def article_header(article: ArticleFile, *, classes: tuple[str, ...], dtype: str, batch_size: int) -> StoreHeader:
    """Returns the header of the store that ``article`` becomes: what the layout does not tell is 'unknown'."""
    counts = np.diff(article.starts).tolist()
    return StoreHeader(
        classes=classes,
        paths=tuple(f"batch-{number}/{row}" for number, rows in enumerate(counts) for row in range(rows)),
        sizes=(0,) * len(article),
        labels=tuple(article.labels.tolist()),
        patients=("",) * len(article),
        feature_shape=article.feature_shape,
        dtype=dtype,
        batch_size=batch_size,
        created=utc_text(article.path.stat().st_mtime),
        versions={"h5py": h5py.__version__, "numpy": np.__version__},
    )


@with_default_errstate
def article_to_store(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    classes: str | None = None,
    dtype: str = "float16",
    batch_size: int | None = None,
    on_progress: OnProgress = unwatched,
) -> None:
    """Converts the article's layout to a store; goes on with an unfinished one of it, leaves a finished one as it is.

    Args:
        source: File of the article's layout.
        destination: The store; must be absent, or what this very conversion left.
        classes: Class names in label order, joined by commas; else as ``features.store.class_names`` has them.
        dtype: ``float16`` or ``float32``.
        batch_size: Rows in a batch of the store; by default those of the first batch.
        on_progress: Told of the progress.

    Raises:
        InputError: The source is malformed or does not fit the dtype, an option is wrong, or the destination is
            another file.
        BottleneckError: The disk is full, or another process writes the destination.
    """
    source, destination = Path(source), Path(destination)
    with ArticleFile(source) as article:
        names = class_names(classes, article.label_count, feature_shape=article.feature_shape)
        require_storable(source, names)
        size = rows_in_batch(batch_size, otherwise=int(article.starts[1]))
        header = article_header(article, classes=names, dtype=dtype, batch_size=size)
        with StoreWriter(destination, header) as writer, writer.filling():
            _fill(writer, article, on_progress)


def _fill(writer: StoreWriter, article: ArticleFile, on_progress: OnProgress) -> None:
    """Writes all rows; those that are there already must be the source's, which the header alone cannot tell."""
    stored = FeatureStore(writer.path)
    for rows in pieces(len(article), article.feature_shape):
        features = article.read(rows, writer.header.dtype)[:, None]
        inside = slice(rows.start, rows.stop)
        settled = writer.done[inside] != RowState.PENDING
        if not np.array_equal(stored.take(rows.start + np.flatnonzero(settled)), features[settled]):
            expected = f"the features of {article.path} in rows {rows.start} to {rows.stop - 1}"
            raise InputError(writer.path, field="features", expected=expected, found="others")
        if not settled.all():
            writer.write(rows, features, np.full(len(rows), RowState.DONE, np.uint8))
        on_progress(rows.stop, len(article))
    writer.finish()


def pieces(rows: int, feature_shape: tuple[int, int, int]) -> Iterator[range]:
    """Cuts ``rows`` into ranges of at most ``CHUNK_BYTES`` of float32 features each, one row at least."""
    step = max(1, CHUNK_BYTES // (4 * math.prod(feature_shape)))
    for start in range(0, rows, step):
        yield range(start, min(start + step, rows))


@with_default_errstate
def store_to_article(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    on_progress: OnProgress = unwatched,
) -> None:
    """Converts the first view of every usable row of a finished store to the article's layout, float32.

    The file appears under its name only once it is whole and on the disk.

    Args:
        source: The store.
        destination: File to make; must be absent, or what this very conversion made.
        batch_size: Rows in a batch; by default 100, or what it was where the store came from the article's layout.
        on_progress: Told of the progress.

    Raises:
        InputError: The source is not a finished store, an option is wrong, or the destination is another file or is
            called as what it will not be.
        BottleneckError: The disk is full or failed, or another process writes the destination.
    """
    destination = Path(destination)
    hint = "a store becomes the article's layout; FeatureStore(...).take reads arrays"
    require_own_name(destination, hint=hint)
    store = FeatureStore(source)
    store.require_complete()
    converted = store.header.backbone == UNKNOWN
    size = rows_in_batch(batch_size, otherwise=store.header.batch_size if converted else ARTICLE_BATCH)
    usable = store.usable  # once: each reading makes it anew, and every batch would keep a whole one
    batches = [usable[start : start + size] for start in range(0, len(usable), size)]
    needed = 4 * len(usable) * (math.prod(store.header.feature_shape) + len(store.classes))
    with WriterLock(destination):
        if destination.exists():
            if not _is_article_of(destination, store, batches):
                raise InputError(destination, expected="no such file", found="one")
            on_progress(len(usable), len(usable))
            return
        with replacing(destination, needed=needed) as temporary:
            _write_article(temporary, store, batches, on_progress, needed=needed)


def _is_article_of(path: Path, store: FeatureStore, batches: list[Rows]) -> bool:
    """Whether a file holds these rows in the article's layout, as a conversion left it that was killed at its end."""
    try:
        with ArticleFile(path) as article:
            shape = (article.feature_shape, article.label_count, np.diff(article.starts).tolist())
            if shape != (store.header.feature_shape, len(store.classes), [*map(len, batches)]):
                return False
            usable = store.usable
            return np.array_equal(article.labels, store.labels[usable]) and all(
                np.array_equal(article.read(piece, "float32"), store.take(usable[piece.start : piece.stop], 0))
                for piece in pieces(len(article), article.feature_shape)
            )
    except InputError:
        return False


def _write_article(
    path: Path, store: FeatureStore, batches: list[Rows], on_progress: OnProgress, *, needed: int
) -> None:
    shape, total = store.header.feature_shape, sum(map(len, batches))
    one_hot = np.eye(len(store.classes), dtype=np.float32)
    places = []
    with allocated(path, needed=needed) as file:
        for number, rows in enumerate(batches):
            places.append(declare(file, f"features-{number}", (len(rows), *shape), "float32"))
            file.create_dataset(f"labels-{number}", data=one_hot[store.labels[rows]])
        file.create_dataset("batches", data=len(batches))
    written = 0
    with path.open("r+b") as file:
        for rows, place in zip(batches, places, strict=True):
            for piece in pieces(len(rows), shape):
                features = store.take(rows[piece.start : piece.stop], 0).astype(np.float32)
                write_at(file.fileno(), features, place + piece.start * 4 * math.prod(shape))
                written += len(piece)
                on_progress(written, total)
