"""``python -m features.extract IMAGES STORE``: an image folder through a frozen backbone into a feature store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

import numpy as np
import typer
from rich.progress import TaskID

from features.backbones import BACKBONES, IMAGENET, Backbone, BackboneSpec, build_backbone
from features.backend import start_backend, use_backend
from features.command import console, progress, run_command
from features.errors import BottleneckError
from features.images import ImageTable, printable, scan_folder
from features.pipeline import Batch, bottlenecks
from features.skipped import skipped_images, skipped_path, write_skipped
from features.split import GROUP_PATTERN
from features.store import FeatureStore, RowState, StoreHeader, StoreWriter
from features.views import View, parse_views

IDENTITY = (View("identity"),)
_LISTED = 5
"""How many of the skipped images the summary names; the file beside the store names all."""

Say = Callable[[str], object]
"""Called with a line for the user."""
Report = Callable[[int, int], object]
"""Called with the number of rows that are settled and their number in all: before any work is done, then whenever a
batch is on the disk, by the thread that writes."""


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


def extract(
    images: Path,
    store: Path,
    *,
    spec: BackboneSpec,
    views: Sequence[View] = IDENTITY,
    batch_size: int = 32,
    group_pattern: str = GROUP_PATTERN,
    dtype: str = "float16",
    limit: int | None = None,
    strict: bool = False,
    say: Say = lambda line: None,
    report: Report = lambda settled, total: None,
) -> ExtractionSummary:
    """Extracts an image folder into a store, or goes on with an unfinished store of the same extraction.

    Images that cannot be decoded become rows that are never used, and are listed in ``<STORE>.skipped.csv``. A run
    that was killed and resumed leaves the same bytes as one that was not.

    Args:
        images: Folder with one sub-folder a class.
        store: File to make or to finish.
        spec: The backbone.
        views: The variants of each image.
        batch_size: Images in a forward pass, and rows that are written at once.
        group_pattern: Where in a file's name the patient is, see ``split``.
        dtype: ``float16`` or ``float32``, of the features.
        limit: Take at most this many images, evenly from the classes.
        strict: Stop at the first image that cannot be decoded.
        say: Told what the user should know about the folder.
        report: Told of the progress after each batch.

    Raises:
        InputError: Folder, backbone or weights do not fit, or the store is another one; the field is named.
        BottleneckError: The disk is full, another process writes the store, no image can be decoded, or
            with ``strict`` one cannot.
    """
    table = scan_folder(images, group_pattern=group_pattern, limit=limit)
    plan = _Plan(table, spec, tuple(views), dtype, batch_size)
    plan.check_early(store)
    for remark in table.remarks:
        say(f"note: {remark}")
    start_backend()
    backbone = build_backbone(spec)
    with StoreWriter(store, plan.header(backbone.feature_shape, backbone.weights_sha256)) as writer:
        if strict:
            _refuse(table, skipped_images(writer, table, {}))
        already = int(np.count_nonzero(writer.done))
        started = time.perf_counter()
        reasons = _compute(writer, table, backbone, views, strict=strict, report=report)
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
            backbone=self.spec.name,
            alpha=self.spec.alpha,
            weights=self.spec.weights_name,
            weights_sha256=weights_sha256,
            image_size=self.spec.size,
            preprocessing=self.spec.preprocessing,
            dtype=self.dtype,
            batch_size=self.batch_size,
            created=self.table.newest,
            versions=dict(_versions()),
        )

    def check_early(self, path: Path) -> None:
        """Refuses another store before seconds are spent on the backbone."""
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
    report: Report,
) -> dict[int, str]:
    """Settles all pending rows; returns the reasons of those it skipped. A batch is written while the next is made."""
    header = writer.header
    reasons: dict[int, str] = {}
    report(int(np.count_nonzero(writer.done)), len(table))

    def settle(batch: Batch) -> None:
        states = np.full(len(batch.indices), RowState.DONE, np.uint8)
        states[[row - batch.indices.start for row in batch.reasons]] = RowState.SKIPPED
        writer.write(batch.indices, batch.features, states)
        reasons.update(batch.reasons)
        report(int(np.count_nonzero(writer.done)), len(table))

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


def describe(summary: ExtractionSummary) -> Iterator[str]:
    """Yields the lines that tell a user what an extraction did."""
    done = summary.images - len(summary.skipped)
    yield f"{summary.store}: {done:,} images, {len(summary.skipped):,} skipped, {summary.bytes / 1e6:,.1f} MB"
    if summary.settled:
        rate = summary.settled / summary.seconds
        before = summary.images - summary.settled
        yield f"{summary.settled:,} images in {summary.seconds:.1f} s, {rate:.1f} images/s" + (
            f"; {before:,} were there already" if before else ""
        )
    else:
        yield "nothing to do: the store was complete already"
    for name, count in summary.counts.items():
        yield f"{printable(name)}: {count:,} images of {summary.patients[name]:,} known patients"
    if summary.unknown:
        yield f"warning: the patient of {summary.unknown:,} images is unknown: see --group-pattern"
    missing = [printable(name) for name, count in summary.counts.items() if not count]
    if missing:
        yield f"warning: no image left of {', '.join(missing)}"
    for path, reason in list(summary.skipped.items())[:_LISTED]:
        yield f"skipped {printable(path)}: {reason}"
    if len(summary.skipped) > _LISTED:
        yield f"skipped {len(summary.skipped) - _LISTED:,} more: {skipped_path(summary.store)}"


def main(
    images: Annotated[Path, typer.Argument(help="Folder with one sub-folder a class.", show_default=False)],
    store: Annotated[Path, typer.Argument(help="The feature store to make or to finish.", show_default=False)],
    *,
    backbone: Annotated[str, typer.Option(help=f"One of {', '.join(BACKBONES)}.")] = BackboneSpec.name,
    weights: Annotated[
        str, typer.Option(help="imagenet (downloaded once by Keras), random, random:SEED, or a file.")
    ] = IMAGENET,
    alpha: Annotated[
        float | None, typer.Option(help="Width multiplier of mobilenet and mobilenet_v2.", show_default=False)
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels; else the backbone's own.", show_default=False)
    ] = None,
    preprocessing: Annotated[
        str, typer.Option(help="backbone: what keras.applications defines; unit: x / 255, as the article did.")
    ] = BackboneSpec.preprocessing,
    views: Annotated[
        str,
        typer.Option(
            help="Variants of each image, joined by commas: identity, flip, shift:X:Y, rotate:DEGREES, "
            "zoom:FACTOR, contrast:FACTOR, or several of these joined by +."
        ),
    ] = "identity",
    batch_size: Annotated[int, typer.Option(min=1, max=65536, help="Images in a forward pass.")] = 32,
    group_pattern: Annotated[
        str, typer.Option(help="Regular expression whose group is the patient in a file's name, ending left off.")
    ] = GROUP_PATTERN,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Of the features.")] = "float16",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many images, evenly from the classes.", show_default=False)
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an image that cannot be decoded.")] = False,
    backend: Annotated[
        Literal["tensorflow", "jax"] | None, typer.Option(help="Keras backend; else tensorflow.", show_default=False)
    ] = None,
) -> None:
    """Runs the images of a folder through a frozen backbone and keeps its last feature maps.

    An extraction that was stopped goes on where it was when the same command runs again.
    """
    use_backend(backend)
    spec = BackboneSpec(name=backbone, weights=weights, image_size=image_size, alpha=alpha, preprocessing=preprocessing)
    with _Progress() as display:
        summary = extract(
            images,
            store,
            spec=spec,
            views=parse_views(views),
            batch_size=batch_size,
            group_pattern=group_pattern,
            dtype=dtype,
            limit=limit,
            strict=strict,
            say=_say,
            report=display,
        )
    for line in describe(summary):
        _say(line)


class _Progress:
    """Shows a ``Report``, from the first one on; nothing where there is nothing to do. Use as a context manager."""

    def __init__(self) -> None:
        self._display = progress("images")
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, settled: int, total: int) -> None:
        if self._task is not None:
            self._display.update(self._task, completed=settled)
        elif settled < total:
            self._display.start()
            self._task = self._display.add_task("extracting", total=total, completed=settled, already=settled)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._display.stop()


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
