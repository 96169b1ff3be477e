"""An image folder into a feature store, or several at once: what is decided before the work, and its order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from features.extraction.backbone_spec import BackboneSpec
from features.extraction.backbones import build_backbone
from features.extraction.changes import Changes, find_changes
from features.extraction.filling import Filling, fill, finish, refuse_skipped
from features.extraction.image_list import images_of
from features.extraction.making import Build, Maker, MakerHere, check_backend, versions_here
from features.extraction.options import ExtractionOptions
from features.extraction.scale import scale_of
from features.extraction.summary import ExtractionSummary
from features.extraction.update import check_same_features, differs, side_path, updating
from features.extraction.views_by_images import remark_on, views_by_images
from features.images.decode import UndecodableError, decode_image
from features.images.folder import ImageTable
from features.images.pages import source_of
from features.images.pillow_internals import raise_pixel_limit
from features.images.reading import Reading
from features.images.survey import Choice
from features.images.views import View
from features.runtime.backend import start_backend
from features.runtime.progress import OnProgress, unwatched
from features.store.intensity import parse_intensity
from features.store.limits import require_own_name, require_storable
from features.store.reader import FeatureStore
from features.store.schema import StoreHeader
from features.store.writer import StoreWriter

if TYPE_CHECKING:
    import pandas as pd

Say = Callable[[str], object]
"""Called with a line for the user."""


def build_here(specs: Sequence[BackboneSpec]) -> Maker:
    """Builds backbones in this process, which starts its backend.

    Raises:
        InputError: As ``features.extraction.backbones.build_backbone``.
    """
    start_backend()
    return MakerHere([build_backbone(spec) for spec in specs])


def extract_store(
    images: Path,
    store: Path,
    options: ExtractionOptions,
    *,
    frame: pd.DataFrame | None = None,
    say: Say = lambda line: None,
    on_progress: OnProgress = unwatched,
    build: Build = build_here,
) -> ExtractionSummary:
    """Extracts an image folder into one store: ``extract_stores`` with the one backbone that the options name.

    Args:
        images: Folder with one sub-folder per class; with a table of labels, any folder.
        store: File to make or to finish.
        options: How; all of them but the backend, which is the process's.
        frame: A table of labels, instead of the file that ``options.table`` names.
        say: Told what the user should know about the folder.
        on_progress: As in ``extract_stores``.
        build: As in ``extract_stores``.

    Raises:
        InputError: As ``extract_stores``; or the options name several backbones or sizes.
        BottleneckError: As ``extract_stores``.
    """
    wanted = {store: options.spec}
    (summary,) = extract_stores(images, wanted, options, frame=frame, say=say, on_progress=on_progress, build=build)
    return summary


def extract_stores(
    images: Path,
    stores: Mapping[Path, BackboneSpec],
    options: ExtractionOptions,
    *,
    frame: pd.DataFrame | None = None,
    say: Say = lambda line: None,
    on_progress: OnProgress = unwatched,
    build: Build = build_here,
) -> list[ExtractionSummary]:
    """Extracts an image folder into stores, or goes on with unfinished stores of the same extraction.

    Each image is read and decoded once for all stores that need it. Each store is what it would be by itself, to the
    byte. Images that cannot be decoded become rows that are never used, and are listed in ``<STORE>.skipped.csv``. A
    run that was killed and resumed leaves the same bytes as one that was not. Images that have changed since are
    refused, with ``options.update`` computed anew (``features.extraction.update``).

    Args:
        images: Folder with one sub-folder per class; with a table of labels, any folder.
        stores: The backbone of each file to make or to finish.
        options: How; all of them but the backbones and the backend, which is the process's.
        frame: A table of labels, instead of the file that ``options.table`` names.
        say: Told what the user should know about the folder.
        on_progress: Told how many rows of how many are settled in every store: before the work, then after each batch
            of each store, by the thread that writes.
        build: Builds the backbones, which make the features: in this process, where nothing else is told.

    Returns:
        What was done to each store.

    Raises:
        InputError: Folder, backbone or weights do not fit, a store is another one, or images have changed since it
            was made; the field is named.
        BottleneckError: The disk is full, another process writes a store, no image can be decoded, or
            with ``strict`` one cannot.
    """
    options.check()
    raise_pixel_limit(options.max_pixels)
    table = images_of(images, options, frame)
    scale = cache(partial(scale_of, table, options))
    reading = cache(lambda intensity: Reading(parse_intensity(intensity), options.max_pixels, options.resize))
    # behind a link, a store stays where it is: an update takes the place of the file, not of the link
    stores = {path.resolve() if path.is_symlink() else path: spec for path, spec in stores.items()}
    for path in stores:
        if not path.exists():
            require_own_name(path)
    there = {path: FeatureStore(path) for path in stores if path.exists()}
    views = options.variants or views_by_images(len(table), [stored.header.views for stored in there.values()])
    plans = []
    for path, spec in stores.items():
        stored = there.get(path)
        choice = scale(None if stored is None else stored.header.intensity)
        plans.append(_Plan(table, spec, views, options, choice, path, stored))
    found = [plan.compare(say) for plan in plans]
    for plan, changes in zip(plans, found, strict=True):
        plan.check_backend(changes)
    for remark in dict.fromkeys(_remarks(table, plans, found, update=options.update)):
        say(f"note: {remark}")
    maker = build([plan.spec for plan in plans])
    for backbone in maker.built:
        if backbone.remark:
            say(f"note: {backbone.remark}")
    if options.variants is None and len(views) > 1 and not there:
        say(f"note: {remark_on(views, len(table))}")
    with ExitStack() as held:
        filled: list[Filling] = []
        for plan, changes, backbone in zip(plans, found, maker.built, strict=True):
            header = plan.header(backbone.feature_shape, backbone.weights_sha256)
            update = changes if options.update else None
            opened = StoreWriter(plan.path, header) if update is None else updating(update, header, table)
            writer = held.enter_context(opened)
            filled.append(Filling(plan.path, writer, reading(plan.scale.intensity), update))
        if options.strict:
            for one in filled:
                refuse_skipped(table, one.skipped(table))
        seconds = fill(filled, table, views, make=maker.make, strict=options.strict, on_progress=on_progress)
        summaries = finish(filled, table, seconds=seconds)
    return [
        replace(summary, notes=tuple(one.reading.tally.notes(one.reading.intensity, chosen=plan.stored is None)))
        for plan, one, summary in zip(plans, filled, summaries, strict=True)
    ]


def _remarks(
    table: ImageTable, plans: Sequence[_Plan], found: Sequence[Changes | None], *, update: bool
) -> Iterator[str]:
    """Yields what the user should know before the work."""
    yield from table.remarks
    for plan, changes in zip(plans, found, strict=True):
        whose = f"{plan.path.name}: " if len(plans) > 1 else ""
        yield from (f"{whose}{remark}" for remark in (changes.remarks(update=update) if changes else ()))
    for plan in plans:
        yield from plan.scale.notes


@dataclass(frozen=True)
class _Plan:
    """All that decides a store but the backbone's weights; and the store that is there, if there is one."""

    table: ImageTable
    spec: BackboneSpec
    views: tuple[View, ...]
    options: ExtractionOptions
    scale: Choice
    path: Path
    stored: FeatureStore | None

    def header(self, feature_shape: tuple[int, int, int], weights_sha256: str) -> StoreHeader:
        shown = {"intensity": self.scale.intensity, "resize": self.options.resize}
        return StoreHeader(
            classes=self.table.classes,
            paths=self.table.paths,
            sizes=self.table.sizes,
            labels=self.table.labels,
            patients=self.table.patients,
            parts=self.table.parts,
            feature_shape=feature_shape,
            pages=self.options.pages,
            views=tuple(view.name for view in self.views),
            **(self.spec.kind(feature_shape, weights_sha256).origin | shown),
            dtype=self.options.dtype,
            batch_size=self.options.batch_size,
            created=self.table.newest,
            versions=versions_here(),
            modified=self.table.modified,
        )

    def compare(self, say: Say) -> Changes | None:
        """Refuses a store that cannot be gone on with, and too many classes, before seconds are spent on the backbone.

        Returns:
            How the store differs from one that is made now; None where there is no store, or nothing to update.
        """
        require_storable(self.table.folder, self.table.classes)
        stored, path = self.stored, self.path
        if stored is None:
            return None
        header = self.header(stored.header.feature_shape, stored.header.weights_sha256)
        changes = find_changes(stored, self.table, say=say, retry=self._decodes if self.options.update else None)
        if self.options.update:
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

    def check_backend(self, changes: Changes | None) -> None:
        """Refuses to compute rows of a store that is there on another backend than it was begun with."""
        updated = self.options.update and changes is not None
        if self.stored is not None and (updated or not self.stored.complete):
            check_backend(self.path, self.stored.header.versions, versions_here())

    def _decodes(self, path: str) -> bool:
        """Whether an image can be decoded as it is to be read now."""
        reading = Reading(parse_intensity(self.scale.intensity), self.options.max_pixels, self.options.resize)
        try:
            decode_image(source_of(self.table.folder, path), self.spec.size, reading)
        except UndecodableError:
            return False
        return True
