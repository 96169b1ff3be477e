"""An image folder into a feature store, batch by batch, resumable to the byte."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import Backbone, build_backbone
from features.extraction.changes import Changes, find_changes
from features.extraction.options import ExtractionOptions
from features.extraction.pipeline import Batch, bottlenecks
from features.extraction.rows import images_of
from features.extraction.scale import scale_of, table_of_pages
from features.extraction.skipped import skipped_images, skipped_path, write_skipped
from features.extraction.summary import ExtractionSummary, summarize
from features.extraction.update import check_same_features, differs, pending_in_place, side_path, take_place, updating
from features.images.folder import ImageTable
from features.images.pages import source_of
from features.images.reading import Reading
from features.images.views import View
from features.runtime.backend import start_backend, use_backend
from features.runtime.errors import BottleneckError
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import printable
from features.store.intensity import parse_intensity
from features.store.limits import require_storable
from features.store.reader import FeatureStore
from features.store.schema import RowState, StoreHeader
from features.store.writer import StoreWriter

if TYPE_CHECKING:
    import pandas as pd

Say = Callable[[str], object]
"""Called with a line for the user."""


def extract_store(
    images: Path,
    store: Path,
    options: ExtractionOptions,
    *,
    frame: pd.DataFrame | None = None,
    say: Say = lambda line: None,
    on_progress: OnProgress = unwatched,
) -> ExtractionSummary:
    """Extracts an image folder into a store, or goes on with an unfinished store of the same extraction.

    Images that cannot be decoded become rows that are never used, and are listed in ``<STORE>.skipped.csv``. A run
    that was killed and resumed leaves the same bytes as one that was not. Images that have changed since are refused,
    with ``options.update`` computed anew (``features.extraction.update``).

    Args:
        images: Folder with one sub-folder a class; with a table of labels, any folder.
        store: File to make or to finish.
        options: How; all of them but the backend, which is the process's.
        frame: A table of labels, instead of the file that ``options.table`` names.
        say: Told what the user should know about the folder.
        on_progress: Told how many rows of how many are settled: before the work, then after each batch, by the thread
            that writes.

    Raises:
        InputError: Folder, backbone or weights do not fit, the store is another one, or images have changed since it
            was made; the field is named.
        BottleneckError: The disk is full, another process writes the store, no image can be decoded, or
            with ``strict`` one cannot.
    """
    spec, views, _ = options.spec, options.variants, options.scale
    table = table_of_pages(images_of(images, options, frame), options)
    stored = FeatureStore(store) if store.exists() else None
    scale = scale_of(table, options, None if stored is None else stored.header.intensity)
    shown = {"intensity": scale.intensity, "resize": options.resize}
    plan = _Plan(table, spec, views, options.dtype, options.batch_size, shown, options.pages)
    changes = plan.compare(stored, update=options.update, say=say)
    updates = changes.remarks(update=options.update) if changes else ()
    for remark in (*table.remarks, *updates, *scale.notes):
        say(f"note: {remark}")
    reading = Reading(parse_intensity(scale.intensity), options.max_pixels, options.resize)
    start_backend()
    backbone = build_backbone(spec)
    if remark := getattr(backbone, "remark", ""):  # which what stands in for a backbone need not have
        say(f"note: {remark}")
    header = plan.header(backbone.feature_shape, backbone.weights_sha256)
    update = changes if options.update else None
    with StoreWriter(store, header) if update is None else updating(update, header, table) as writer:
        if options.strict:
            _refuse(table, skipped_images(writer, table, {}, reading))
        already = int(np.count_nonzero(writer.done))
        started = time.perf_counter()
        batches = [*writer.pending()] if update is None else pending_in_place(writer)
        decoding = _Decoding(views, reading, options.strict)
        reasons = _compute(writer, batches, table, backbone, decoding, on_progress=on_progress)
        seconds = time.perf_counter() - started
        skipped = skipped_images(writer, table, reasons, reading)
        write_skipped(store, skipped, table.left_out)
        if len(skipped) == len(table):
            path, reason = next(iter(skipped.items()))
            writer.path.unlink()  # nothing in it can be used, and it would be in the way of mended images
            raise BottleneckError(
                f"{images}: none of {len(table)} images can be decoded; {printable(path)}: {reason};"
                f" all of them: {skipped_path(store)}"
            )
        writer.finish()
        if update is not None:
            take_place(writer, store)
        settled = len(table) - already
    notes = tuple(reading.tally.notes(reading.intensity, chosen=stored is None))
    summary = summarize(store, writer.done, table, changes=update, settled=settled, seconds=seconds, skipped=skipped)
    return replace(summary, notes=notes)


@dataclass(frozen=True)
class _Plan:
    """All that decides a store but the backbone's weights."""

    table: ImageTable
    spec: BackboneSpec
    views: tuple[View, ...]
    dtype: str
    batch_size: int
    shown: dict[str, str]  # what of the kind of features is decided beside the backbone
    pages: str

    def header(self, feature_shape: tuple[int, int, int], weights_sha256: str) -> StoreHeader:
        return StoreHeader(
            classes=self.table.classes,
            paths=self.table.paths,
            sizes=self.table.sizes,
            labels=self.table.labels,
            patients=self.table.patients,
            parts=self.table.parts,
            feature_shape=feature_shape,
            pages=self.pages,
            views=tuple(view.name for view in self.views),
            **(self.spec.kind(feature_shape, weights_sha256).origin | self.shown),
            dtype=self.dtype,
            batch_size=self.batch_size,
            created=self.table.newest,
            versions=dict(_versions()),
            modified=self.table.modified,
        )

    def compare(self, stored: FeatureStore | None, *, update: bool, say: Say) -> Changes | None:
        """Refuses a store that cannot be gone on with, and too many classes, before seconds are spent on the backbone.

        Returns:
            How the store differs from one that is made now; None where there is no store, or nothing to update.
        """
        require_storable(self.table.folder, self.table.classes)
        if stored is None:
            return None
        path = stored.path
        header = self.header(stored.header.feature_shape, stored.header.weights_sha256)
        changes = find_changes(stored, self.table, say=say)
        if update:
            check_same_features(changes, header)
            if differs(changes, header):
                return changes
            side_path(path).unlink(missing_ok=True)  # of an update that is not wanted any more
            return None
        if stored.header.pages != header.pages:  # all paths are others, which would say less
            stored.header.check_same(path, header)
        changes.refuse(self.table.folder)
        if not differs(changes, header):
            stored.header.check_same(path, header)
        check_same_features(changes, header)
        hint = "--update makes the store that of the images and the table as they are, and keeps its features"
        stored.header.check_same(path, header, hint=hint)
        return changes


@dataclass(frozen=True)
class _Decoding:
    """How images are decoded."""

    views: Sequence[View]
    reading: Reading
    strict: bool


def _versions() -> Iterator[tuple[str, str]]:
    for package in ("h5py", "keras", "numpy", "pillow", use_backend()):
        yield package, version(package)


def _compute(
    writer: StoreWriter,
    batches: Sequence[Sequence[int]],
    table: ImageTable,
    backbone: Backbone,
    how: _Decoding,
    *,
    on_progress: OnProgress,
) -> dict[int, str]:
    """Settles the batches' rows; returns the reasons of those it skipped. A batch is written while the next is made."""
    header = writer.header
    reasons: dict[int, str] = {}
    on_progress(int(np.count_nonzero(writer.done)), len(table))

    def settle(batch: Batch) -> None:
        bad = (row in batch.reasons for row in batch.indices)
        states = np.asarray([RowState.SKIPPED if one else RowState.DONE for one in bad], np.uint8)
        writer.write(batch.indices, batch.features, states, batch.contents)
        reasons.update(batch.reasons)
        on_progress(int(np.count_nonzero(writer.done)), len(table))

    made = bottlenecks(
        [source_of(table.folder, path) for path in table.paths],
        backbone,
        how.views,
        batches=batches,
        batch_size=header.batch_size,
        dtype=header.dtype,
        reading=how.reading,
    )
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="write") as disk, closing(made):
        for batch in made:
            if how.strict:
                _refuse(table, {table.paths[row]: reason for row, reason in batch.reasons.items()})
            if writing is not None:
                writing.result()
            writing = disk.submit(settle, batch)
        if writing is not None:
            writing.result()
    return reasons


def _refuse(table: ImageTable, skipped: dict[str, str]) -> None:
    """Stops a strict run where something would be skipped."""
    for path, reason in skipped.items():
        raise BottleneckError(f"{table.folder / printable(path)}: {reason}; without --strict it is skipped")
