"""Stores filled batch by batch with what their backbones make of the same images, resumable to the byte."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from features.extraction.changes import Changes
from features.extraction.pipeline import Batch, Written
from features.extraction.schedule import Open, shared_batches
from features.extraction.skipped import skipped_images, skipped_path, write_skipped
from features.extraction.summary import ExtractionSummary, summarize
from features.extraction.update import take_place
from features.images.folder import ImageTable
from features.images.reading import Reading
from features.images.views import View
from features.runtime.errors import BottleneckError
from features.runtime.progress import OnProgress
from features.runtime.stopping import heeding_stops
from features.runtime.text import printable
from features.store.schema import RowState
from features.store.writer import StoreWriter


@dataclass
class Filling:
    """A store that is being filled.

    Attributes:
        store: Where it is, or will be once its update is whole.
        writer: Its writer.
        reading: How its images are read.
        update: What has become of its images, where it is updated.
        already: Rows that were settled before.
        reasons: Why a row was skipped by this run, by row.
    """

    store: Path
    writer: StoreWriter
    reading: Reading
    update: Changes | None
    already: int = 0
    reasons: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.already = int(np.count_nonzero(self.writer.done))

    def skipped(self, table: ImageTable) -> dict[str, str]:
        """Returns the reason of each skipped image, by path, in row order."""
        return skipped_images(self.writer, table, self.reasons, self.reading)

    def settle(self, batch: Batch | Written) -> None:
        """Writes what came of a batch."""
        features = batch.features if isinstance(batch, Batch) else None
        bad = (row in batch.reasons for row in batch.indices)
        states = np.asarray([RowState.SKIPPED if one else RowState.DONE for one in bad], np.uint8)
        self.writer.write(batch.indices, features, states, batch.contents)
        self.reasons.update(batch.reasons)


@dataclass(frozen=True)
class Work:
    """The features that stores lack.

    Attributes:
        stores: Of the same images, views, type and size of batches; their order is that of ``Batch.taker``.
        table: The images.
        views: What of each image is shown to the backbones.
        batches: For each batch the rows that each of the stores needs of it, each at its place
            (``features.extraction.schedule``). Who makes them must not cut them otherwise: features have the bits of
            their places.
    """

    stores: Sequence[Filling]
    table: ImageTable
    views: Sequence[View]
    batches: Sequence[Sequence[Sequence[int]]]


Make = Callable[[Work], Generator[Batch | Written]]
"""Makes the features of all batches, in whatever order."""


def fill(
    stores: Sequence[Filling],
    table: ImageTable,
    views: Sequence[View],
    *,
    make: Make,
    strict: bool,
    on_progress: OnProgress,
) -> float:
    """Settles all rows that are pending; a batch is written while the next is made.

    Args:
        stores: As in ``Work``.
        table: The images.
        views: What of each image is shown to the backbones.
        make: What makes the features.
        strict: Whether to stop at an image that cannot be decoded.
        on_progress: Told how many rows of how many are settled in every store.

    Returns:
        Seconds that it took.

    Raises:
        BottleneckError: A disk is full or failed, a folder of images is gone, features are not finite, or with
            ``strict`` an image cannot be decoded.
        KeyboardInterrupt: After Ctrl-C, or SIGTERM.
    """
    started = time.perf_counter()
    header = stores[0].writer.header

    def report() -> None:
        settled = np.logical_and.reduce([store.writer.done != RowState.PENDING for store in stores])
        on_progress(int(np.count_nonzero(settled)), len(table))

    def settle(batch: Batch | Written) -> None:
        stores[batch.taker].settle(batch)
        report()

    report()
    batches = shared_batches([Open(store.writer, store.update is not None) for store in stores], header.batch_size)
    made = make(Work(stores, table, views, batches))
    writing: Future[None] | None = None
    with (
        heeding_stops(at_once=True) as stop,
        ThreadPoolExecutor(1, thread_name_prefix="write") as disk,
        closing(made),
    ):
        for batch in made:
            stop.take_effect()
            _refuse_lost_folder(table, batch.reasons)
            if strict:
                refuse_skipped(table, {table.paths[row]: reason for row, reason in batch.reasons.items()})
            if writing is not None:
                writing.result()
            writing = disk.submit(settle, batch)
        if writing is not None:
            writing.result()
    return time.perf_counter() - started


def _refuse_lost_folder(table: ImageTable, rows: Iterable[int]) -> None:
    """Stops where a folder that images were found in is there no more, as when its disk drops out: it may come back."""
    for row in rows:
        folder = (table.folder / table.paths[row]).parent
        if not folder.is_dir():
            raise BottleneckError(f"{folder}: the folder is gone; run the same command again once it is back")


def finish(stores: Sequence[Filling], table: ImageTable, *, seconds: float) -> list[ExtractionSummary]:
    """Marks stores complete whose rows are all settled, and lists what was skipped beside each.

    Args:
        stores: After ``fill``.
        table: Their images.
        seconds: What that took.

    Raises:
        BottleneckError: Nothing could be decoded for one of them, which is then removed; the others are finished.
    """
    summaries: list[ExtractionSummary] = []
    failure: BottleneckError | None = None
    for store in stores:
        skipped = store.skipped(table)
        write_skipped(store.store, skipped, table.left_out)
        if len(skipped) == len(table):
            path, reason = next(iter(skipped.items()))
            store.writer.path.unlink()  # nothing in it can be used, and it would be in the way of mended images
            failure = failure or BottleneckError(
                f"{table.folder}: none of {len(table)} images can be decoded; {printable(path)}: {reason};"
                f" all of them: {skipped_path(store.store)}"
            )
            continue
        store.writer.finish()
        if store.update is not None:
            take_place(store.writer, store.store)
        settled, done = len(table) - store.already, store.writer.done
        summaries.append(
            summarize(store.store, done, table, changes=store.update, settled=settled, seconds=seconds, skipped=skipped)
        )
    if failure is not None:
        raise failure
    return summaries


def refuse_skipped(table: ImageTable, skipped: Mapping[str, str]) -> None:
    """Stops a strict run where something would be skipped.

    Raises:
        BottleneckError: It names the first image.
    """
    for path, reason in skipped.items():
        raise BottleneckError(f"{table.folder / printable(path)}: {reason}; without --strict it is skipped")
