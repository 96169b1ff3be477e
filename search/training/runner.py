"""Puts a pool together for a study: the bank's size, the data in it, and what a killed run left."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from pathlib import Path

from features.runtime.allocator import keep_freed_memory
from features.runtime.memory import resident_budget
from heads.bank.engine import Engine
from heads.bank.shape import BankShape, pages_of
from search.record.storage import OpenedStudy
from search.setup.config import StudyConfig
from search.setup.data import SearchData
from search.training.checkpoint_sink import CheckpointSink
from search.training.display import Display
from search.training.pool import Pool
from search.training.snapshot import Saved, Snapshot, Snapshots
from search.training.stages import OnStage, Stage, untold
from search.training.throughput import Throughput
from search.trials.ask_tell import Book


@dataclass(frozen=True)
class Recording:
    """Where a pool's record goes.

    Attributes:
        folder: The study directory.
        opened: The study.
        saved: What a killed run left there.
        snapshot_every: Seconds between two snapshots.
    """

    folder: Path
    opened: OpenedStudy
    saved: Saved | None
    snapshot_every: float


def run_pool(
    recording: Recording,
    *,
    shape: BankShape,
    data: SearchData,
    book: Book,
    sink: CheckpointSink,
    display: Display,
    shrinks: bool = False,
    on_stage: OnStage = untold,
) -> Throughput:
    """Runs a study's trials in a bank.

    Args:
        recording: Where its record goes, and what a killed run left there.
        shape: Of the bank.
        data: Rows to train and validate on.
        book: Gives out the trials.
        sink: Takes the heads.
        display: Shows how far it is.
        shrinks: Whether a bank that is half empty gives way to one that holds what is left: that costs a compilation,
            and pays where many leave early and nobody comes in.
        on_stage: Told of each smaller bank before it is made.

    Returns:
        Where the time went, in earlier runs of the study too.
    """
    opened, saved = recording.opened, recording.saved
    throughput = saved.throughput if saved else Throughput.read(recording.folder)
    if not saved and book.is_exhausted:
        return throughput  # every trial has been told: no bank is made, and no features are read
    snapshots = Snapshots(recording.folder, opened.journal_bytes, every=recording.snapshot_every)
    snapshot = saved.bring_back(book.back, shape) if saved else None
    through = False
    keep_freed_memory()  # again: TensorFlow sets a part of it otherwise whenever ``fit`` has run
    try:
        while not through:
            engine = _engine(snapshot.shape if snapshot else shape, data, book.config)
            pool = Pool(
                book, data, engine, sink, display, flush=opened.flush, snapshots=snapshots, throughput=throughput
            )
            if snapshot:
                _restore(pool, snapshot, saved)
            through = pool.run(until_half_empty=shrinks)
            display.detail = None  # which holds on to the pool
            if through:
                throughput.write(recording.folder)
                snapshots.clear()
            else:
                snapshot = _smaller(pool.snapshot())
                on_stage(Stage.SMALLER_BANK)
            del pool, engine
            gc.collect()  # before the next one takes its memory
    finally:
        snapshots.close()
    return throughput


def _restore(pool: Pool, snapshot: Snapshot, saved: Saved | None) -> None:
    """Puts the heads of a snapshot back; one from a file may not be what it was."""
    try:
        pool.restore(snapshot)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        if saved is None:
            raise
        raise saved.damaged(error) from error


def _engine(shape: BankShape, data: SearchData, config: StudyConfig) -> Engine:
    return Engine(
        shape,
        train=data.train,
        validation=data.validation,
        validation_rows=data.folds or None,
        dtype=config.dtype,
        resident=_bytes(data, config.dtype) <= resident_budget(),
        objective=config.objective,
        class_weights=data.class_weights(config.class_weights),
    )


def _smaller(snapshot: Snapshot) -> Snapshot:
    """Returns the snapshot for a bank that has room for just the heads in it."""
    shape, specs = snapshot.shape, [member.asked.spec for member in snapshot.members]
    covering = BankShape.covering(
        specs,
        pages=sum(map(pages_of, specs)),
        feature_shape=shape.feature_shape,
        classes=shape.classes,
        batch=shape.batch,
        folds=shape.folds,
        room=shape.room_for(specs),
    )
    return replace(snapshot, shape=covering, places=[None] * len(specs))


def _bytes(data: SearchData, dtype: str | None) -> int:
    rows = len(data.train.rows) + (0 if data.folds else len(data.validation.rows))
    return rows * data.store.header.row_values * (2 if dtype == "bfloat16" else 4)
