"""Puts a pool together for a study: the bank's size, the data in it, and what a killed run left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from features.memory import resident_budget
from heads.engine import Engine
from heads.pages import BankShape
from heads.program import default_dtype
from search.book import Book
from search.config import StudyConfig
from search.data import SearchData
from search.display import Display
from search.meter import Meter
from search.pool import Keeper, Pool, plan_of
from search.sizing import bank_shape, step_rate
from search.snapshot import Saved, Snapshots
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
) -> tuple[Meter, int]:
    """Runs a study's trials in a bank; returns where the time went, and how often a program was compiled."""
    dtype = book.config.dtype
    meter = Meter(**saved.content["meter"]) if saved else Meter()
    engine = Engine(
        shape,
        train=data.train,
        validation=data.validation,
        validation_rows=data.folds or None,
        dtype=dtype,
        resident=_bytes(data, dtype) <= resident_budget(),
        objective=book.config.objective,
        class_weights=data.class_weights(book.config.class_weights),
    )
    snapshots = Snapshots(folder, opened.journal_bytes, every=snapshot_every) if opened.journal_bytes else None
    pool = Pool(book, data, engine, keeper, display, flush=opened.flush, snapshots=snapshots, meter=meter)
    if saved:
        pool.restore(saved.bring_back(book.back))
    try:
        pool.run()
    finally:
        if snapshots:
            snapshots.close()
    return meter, engine.traces


def describe_bank(shape: BankShape, dtype: str, meter: Meter, compilations: int) -> dict[str, Any]:
    """Returns what summary.json says of a bank; measures the machine's rate of products."""
    measured = meter.describe(step_rate(shape, dtype))
    return {"pages": shape.pages, "dtype": dtype, "compilations": compilations, **measured}


def _bytes(data: SearchData, dtype: str | None) -> int:
    rows = len(data.train.rows) + (0 if data.folds else len(data.validation.rows))
    return rows * int(np.prod(data.store.features.shape[1:])) * (2 if dtype == "bfloat16" else 4)
