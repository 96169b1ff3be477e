"""Puts a pool together for a study: the bank's size, the data in it, and what a killed run left."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from features.memory import resident_budget
from heads.engine import Engine
from heads.pages import BankShape, pages_of
from heads.program import default_dtype
from search.book import Book
from search.config import StudyConfig
from search.data import SearchData
from search.display import Display
from search.meter import Meter
from search.pool import Keeper, Pool, plan_of
from search.sizing import bank_shape, step_rate
from search.snapshot import Saved, Snapshot, Snapshots
from search.space import Space
from search.storage import OpenedStudy


def settle_bank(config: StudyConfig, space: Space, data: SearchData) -> tuple[StudyConfig, BankShape]:
    """Decides dtype and size of the bank, unless the study has decided before; returns them in the config too."""
    dtype = config.dtype or default_dtype()
    plan, _ = plan_of(data, config.batch_size, config.seed, 0)
    header = data.store.header
    shape = bank_shape(
        space.extremes(),
        trials=config.trials,
        pages=config.pages,
        feature_shape=header.feature_shape,
        classes=len(header.classes),
        batch=plan.rows.shape[1],
        folds=max(1, config.folds),
        dtype=dtype,
    )
    return replace(config, dtype=dtype, pages=shape.pages), shape


def run_pool(
    folder: Path,
    opened: OpenedStudy,
    *,
    shape: BankShape,
    data: SearchData,
    book: Book,
    keeper: Keeper,
    display: Display,
    saved: Saved | None,
    snapshot_every: float,
    shrinks: bool = False,
) -> tuple[Meter, int]:
    """Runs a study's trials in a bank.

    Args:
        folder: The study directory.
        opened: The study.
        shape: Of the bank.
        data: Rows to train and validate on.
        book: Gives out the trials.
        keeper: Takes the heads.
        display: Shows how far it is.
        saved: What a killed run left.
        snapshot_every: Seconds between two snapshots.
        shrinks: Whether a bank that is half empty gives way to one that holds what is left: that costs a compilation,
            and pays where many leave early and nobody comes in.

    Returns:
        Where the time went, and how often a program was compiled.
    """
    meter = Meter(**saved.content["meter"]) if saved else Meter()
    snapshots = Snapshots(folder, opened.journal_bytes, every=snapshot_every) if opened.journal_bytes else None
    snapshot = saved.bring_back(book.back) if saved else None
    compilations, through = 0, False
    try:
        while not through:
            engine = _engine(snapshot.shape if snapshot else shape, data, book.config)
            pool = Pool(book, data, engine, keeper, display, flush=opened.flush, snapshots=snapshots, meter=meter)
            if snapshot:
                pool.restore(snapshot)
            through = pool.run(until_half_empty=shrinks)
            display.detail = None  # which holds on to the pool
            compilations += engine.traces
            if not through:
                snapshot = _smaller(pool.snapshot())
            del pool, engine
            gc.collect()  # before the next one takes its memory
    finally:
        if snapshots:
            snapshots.close()
    return meter, compilations


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
    )
    return replace(snapshot, shape=covering, places=[None] * len(specs))


def describe_bank(shape: BankShape, dtype: str, meter: Meter, compilations: int) -> dict[str, Any]:
    """Returns what summary.json says of a bank; measures the machine's rate of products."""
    measured = meter.describe(step_rate(shape, dtype))
    return {"pages": shape.pages, "dtype": dtype, "compilations": compilations, **measured}


def _bytes(data: SearchData, dtype: str | None) -> int:
    rows = len(data.train.rows) + (0 if data.folds else len(data.validation.rows))
    return rows * int(np.prod(data.store.features.shape[1:])) * (2 if dtype == "bfloat16" else 4)
