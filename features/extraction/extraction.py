"""An image folder into a feature store, batch by batch, resumable to the byte."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import Backbone, build_backbone
from features.extraction.options import ExtractionOptions
from features.extraction.pipeline import Batch, bottlenecks
from features.extraction.skipped import skipped_images, skipped_path, write_skipped
from features.images.folder import ImageTable, scan_folder
from features.images.views import View
from features.runtime.backend import start_backend, use_backend
from features.runtime.errors import BottleneckError
from features.runtime.progress import OnProgress, unwatched
from features.runtime.text import printable
from features.store.limits import require_storable
from features.store.reader import FeatureStore
from features.store.schema import RowState, StoreHeader
from features.store.writer import StoreWriter

Say = Callable[[str], object]
"""Called with a line for the user."""


@dataclass(frozen=True, kw_only=True)
class ExtractionSummary:
    """What an extraction did.

    Attributes:
        store: The finished store.
        bytes: Its size.
        images: Rows of the store.
        settled: Rows that this run settled; the others were there already.
        seconds: How long that took, compilation included.
        skipped: Reason of each image that could not be decoded, in row order.
        counts: Usable images of each class.
        patients: Known patients of each class, among the usable images.
        unknown: Usable images whose patient is unknown.
    """

    store: Path
    bytes: int
    images: int
    settled: int
    seconds: float
    skipped: dict[str, str]
    counts: dict[str, int]
    patients: dict[str, int]
    unknown: int


def extract_store(
    images: Path,
    store: Path,
    options: ExtractionOptions,
    *,
    say: Say = lambda line: None,
    on_progress: OnProgress = unwatched,
) -> ExtractionSummary:
    """Extracts an image folder into a store, or goes on with an unfinished store of the same extraction.

    Images that cannot be decoded become rows that are never used, and are listed in ``<STORE>.skipped.csv``. A run
    that was killed and resumed leaves the same bytes as one that was not.

    Args:
        images: Folder with one sub-folder a class.
        store: File to make or to finish.
        options: How; all of them but the backend, which is the process's.
        say: Told what the user should know about the folder.
        on_progress: Told how many rows of how many are settled: before the work, then after each batch, by the thread
            that writes.

    Raises:
        InputError: Folder, backbone or weights do not fit, or the store is another one; the field is named.
        BottleneckError: The disk is full, another process writes the store, no image can be decoded, or
            with ``strict`` one cannot.
    """
    spec, views = options.spec, options.variants
    table = scan_folder(images, group_pattern=options.group_pattern, limit=options.limit)
    plan = _Plan(table, spec, views, options.dtype, options.batch_size)
    plan.check_early(store)
    for remark in table.remarks:
        say(f"note: {remark}")
    start_backend()
    backbone = build_backbone(spec)
    with StoreWriter(store, plan.header(backbone.feature_shape, backbone.weights_sha256)) as writer:
        if options.strict:
            _refuse(table, skipped_images(writer, table, {}))
        already = int(np.count_nonzero(writer.done))
        started = time.perf_counter()
        reasons = _compute(writer, table, backbone, views, strict=options.strict, on_progress=on_progress)
        seconds = time.perf_counter() - started
        skipped = skipped_images(writer, table, reasons)
        write_skipped(store, skipped)
        if len(skipped) == len(table):
            path, reason = next(iter(skipped.items()))
            store.unlink()  # nothing in it can be used, and it would be in the way of mended images
            raise BottleneckError(
                f"{images}: none of {len(table)} images can be decoded; {printable(path)}: {reason};"
                f" all of them: {skipped_path(store)}"
            )
        writer.finish()
        return _summary(writer, table, settled=len(table) - already, seconds=seconds, skipped=skipped)


@dataclass(frozen=True)
class _Plan:
    """All that decides a store but the backbone's weights."""

    table: ImageTable
    spec: BackboneSpec
    views: tuple[View, ...]
    dtype: str
    batch_size: int

    def header(self, feature_shape: tuple[int, int, int], weights_sha256: str) -> StoreHeader:
        return StoreHeader(
            classes=self.table.classes,
            paths=self.table.paths,
            sizes=self.table.sizes,
            labels=self.table.labels,
            patients=self.table.patients,
            feature_shape=feature_shape,
            views=tuple(view.name for view in self.views),
            **self.spec.kind(feature_shape, weights_sha256).origin,
            dtype=self.dtype,
            batch_size=self.batch_size,
            created=self.table.newest,
            versions=dict(_versions()),
        )

    def check_early(self, path: Path) -> None:
        """Refuses another store, and too many classes, before seconds are spent on the backbone."""
        require_storable(self.table.folder, self.table.classes)
        if path.exists():
            stored = FeatureStore(path).header
            stored.check_same(path, self.header(stored.feature_shape, stored.weights_sha256))


def _versions() -> Iterator[tuple[str, str]]:
    for package in ("h5py", "keras", "numpy", "pillow", use_backend()):
        yield package, version(package)


def _compute(
    writer: StoreWriter,
    table: ImageTable,
    backbone: Backbone,
    views: Sequence[View],
    *,
    strict: bool,
    on_progress: OnProgress,
) -> dict[int, str]:
    """Settles all pending rows; returns the reasons of those it skipped. A batch is written while the next is made."""
    header = writer.header
    reasons: dict[int, str] = {}
    on_progress(int(np.count_nonzero(writer.done)), len(table))

    def settle(batch: Batch) -> None:
        states = np.full(len(batch.indices), RowState.DONE, np.uint8)
        states[[row - batch.indices.start for row in batch.reasons]] = RowState.SKIPPED
        writer.write(batch.indices, batch.features, states)
        reasons.update(batch.reasons)
        on_progress(int(np.count_nonzero(writer.done)), len(table))

    made = bottlenecks(
        [table.folder / path for path in table.paths],
        backbone,
        views,
        batches=list(writer.pending()),
        batch_size=header.batch_size,
        dtype=header.dtype,
    )
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="write") as disk, closing(made):
        for batch in made:
            if strict:
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


def _summary(
    writer: StoreWriter, table: ImageTable, *, settled: int, seconds: float, skipped: dict[str, str]
) -> ExtractionSummary:
    usable = np.flatnonzero(writer.done == RowState.DONE).tolist()
    found = [(table.classes[table.labels[row]], table.patients[row]) for row in usable]
    return ExtractionSummary(
        store=writer.path,
        bytes=writer.path.stat().st_size,
        images=len(table),
        settled=settled,
        seconds=seconds,
        skipped=skipped,
        counts={name: sum(label == name for label, _ in found) for name in table.classes},
        patients={name: len({who for label, who in found if label == name} - {""}) for name in table.classes},
        unknown=sum(not patient for _, patient in found),
    )
