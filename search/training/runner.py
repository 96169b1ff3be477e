"""Puts a pool together for a study: the bank's size, the data in it, and what a killed run left."""

from __future__ import annotations

import gc
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from features.runtime.allocator import keep_freed_memory
from search.record.opened_study import OpenedStudy
from search.setup.stores import StudyData
from search.training.bank_shapes import BankShapes
from search.training.banks import Banks
from search.training.checkpoint_sink import CheckpointSink
from search.training.display import Display
from search.training.inheritance import Inheritance
from search.training.pool import Pool
from search.training.sizing import memory_for
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
    shapes: BankShapes,
    data: StudyData,
    book: Book,
    sink: CheckpointSink,
    display: Display,
    shrinks: bool = False,
    on_stage: OnStage = untold,
) -> Throughput:
    """Runs a study's trials in banks, one for each store.

    Args:
        recording: Where its record goes, and what a killed run left there.
        shapes: Of these banks.
        data: Rows to train and validate on.
        book: Gives out the trials.
        sink: Takes the heads.
        display: Shows how far it is.
        shrinks: Whether banks that are half empty give way to ones that hold what is left, where that pays: it costs
            two compilations.
        on_stage: Told of each smaller bank before it is made.

    Returns:
        Where the time went, in earlier runs of the study too.

    Raises:
        InputError: Memory did not suffice after all.
    """
    opened, saved = recording.opened, recording.saved
    throughput = saved.throughput if saved else Throughput.read(recording.folder)
    if not saved and book.is_exhausted:
        return throughput  # every trial has been told: no bank is made, and no features are read
    snapshots = Snapshots(recording.folder, opened.journal, every=recording.snapshot_every)
    snapshot = saved.to_snapshot(book.resumed_trial, shapes) if saved else None
    through = False
    keep_freed_memory()  # again: TensorFlow sets a part of it otherwise whenever ``fit`` has run
    with closing(snapshots), memory_for(shapes.pages):
        while not through:
            made = Banks(snapshot.shapes if snapshot else shapes, data.named, book.config)
            pool = Pool(
                book,
                made,
                sink,
                display,
                opened=opened,
                snapshots=snapshots,
                throughput=throughput,
                inheritance=Inheritance(recording.folder.parent, opened.study) if opened.crew else None,
            )
            if snapshot:
                _restore(pool, snapshot, saved)
            through = pool.run(until_half_empty=shrinks)
            display.detail = None  # which holds on to the pool
            if through:
                throughput.write(recording.folder)
                snapshots.clear()
            else:
                snapshot, saved = _smaller(pool.snapshot()), None
                on_stage(Stage.SMALLER_BANK)
            del pool, made
            gc.collect()  # before the next one takes its memory
    return throughput


def _restore(pool: Pool, snapshot: Snapshot, saved: Saved | None) -> None:
    """Puts the heads of a snapshot back; one from a file may not be what it was, and nothing ran since."""
    try:
        pool.restore(snapshot)
        if saved and saved.taken:
            for number in saved.trial_numbers:
                pool.book.note_pause(number, saved.taken)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        if saved is None:
            raise
        raise saved.damaged(error) from error


def _smaller(snapshot: Snapshot) -> Snapshot:
    """Returns the snapshot for banks that have room for just the heads in it."""
    shapes = {
        name: shape.just_for([banked.asked.spec for banked in snapshot.trials if banked.store == name])
        for name, shape in snapshot.shapes.by_store.items()
        if any(banked.store == name for banked in snapshot.trials)
    }
    smaller = BankShapes(shapes, sum(shape.pages for shape in shapes.values()))
    return replace(snapshot, shapes=smaller, placements=[])
