"""Epochs are scored fold by fold, in parts: what all heads say of all rows is never in memory at once."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from made_bank import MadeProgram

from heads.bank import engine as engine_module
from heads.bank import validation_rows
from heads.bank.engine import Engine, Newcomer
from heads.bank.shape import BankShape
from heads.bank.validation_rows import ValidationRows
from heads.metrics.scoring import score_all
from heads.model.spec import HeadSpec

ROWS, CLASSES, FOLDS = 4000, 12, 5
SPEC = HeadSpec(conv_width=16, pooling="average", dropout=0.0)


def feed_of(rows: int):
    """Stands for a ``Feed`` of one view."""
    labels = np.random.default_rng(0).integers(0, CLASSES, rows).astype(np.int32)
    return SimpleNamespace(
        rows=np.arange(rows),
        views=1,
        shape=(1, 1, 2),
        resident=True,
        store=SimpleNamespace(labels=labels),
        take=lambda rows, view: np.zeros((len(rows), 1, 1, 2), np.float32),
    )


@pytest.fixture
def engine(monkeypatch) -> Engine:
    monkeypatch.setattr(engine_module, "make_program", MadeProgram)
    shape = BankShape.covering([SPEC], pages=60, feature_shape=(1, 1, 2), classes=CLASSES, batch=50, folds=FOLDS)
    parts = [np.arange(fold, ROWS - 37 * fold, FOLDS) for fold in range(FOLDS)]
    made = Engine(shape, train=feed_of(ROWS), validation_rows=parts, dtype="float32", objective="balanced_accuracy")
    made.insert([Newcomer(spec=SPEC, seeds=tuple(range(seed, seed + FOLDS)), epochs=1) for seed in range(3)])
    return made


@pytest.mark.parametrize("bytes_", [1, 2**18, 2**20])
def test_scores_in_parts_are_those_of_all_at_once(engine, monkeypatch, bytes_):
    program, scoring = engine._program, engine._scoring
    index = np.searchsorted(engine._validation.rows, scoring.rows).astype(np.int32)
    (whole,) = scoring.plans(index, 1)
    found = program.predict_held(engine._settings(), engine._held[-1], whole)
    monkeypatch.setattr(validation_rows, "_PART_BYTES", bytes_)
    scores = engine.validate()
    for fold, rows in enumerate(scoring.rows_of):
        mine = scoring.folds == fold
        every = found[mine].swapaxes(1, 2)[scoring.real[mine]].swapaxes(0, 1)
        expected = score_all(every, engine._validation.store.labels[rows], "balanced_accuracy")
        for numbers, wanted in zip(scores, expected, strict=True):
            np.testing.assert_array_equal(numbers[fold, :3], wanted[:3])
            assert np.isnan(numbers[fold, 3:]).all()


@pytest.mark.parametrize("slot", range(3))
def test_one_head_is_scored_as_among_others_to_the_bit(engine, slot):
    """NumPy adds up what has a single column in another way, so no head may be scored by itself."""
    among_others = engine.validate()
    engine.remove({0, 1, 2} - {slot})
    for alone, numbers in zip(engine.validate(), among_others, strict=True):
        np.testing.assert_array_equal(alone[:, slot], numbers[:, slot])


def test_little_of_the_predictions_is_in_memory_at_once(engine, monkeypatch):
    monkeypatch.setattr(validation_rows, "_PART_BYTES", 2**18)
    engine.validate()
    tracemalloc.start()
    engine.validate()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < ROWS * engine.shape.slots * CLASSES * 4 / 3


@pytest.mark.parametrize("rows", [1, 49, 50, 51, 777, 12345])
@pytest.mark.parametrize("most", [1, 2, 7, 30, 10**6])
def test_parts_are_equal_and_hold_every_batch_in_order(monkeypatch, rows, most):
    monkeypatch.setattr(validation_rows, "_PART_BYTES", most)
    scoring = ValidationRows.of([np.arange(rows)], feed_of(rows), 50)
    plans = list(scoring.plans(scoring.rows.astype(np.int32), 1))
    assert len({plan.places.shape for plan in plans}) == 1
    assert len(plans[0].places) <= most
    places = np.concatenate([plan.places for plan in plans])
    np.testing.assert_array_equal(places[: len(scoring.rows)], scoring.rows)
    assert len(places) - len(scoring.rows) <= len(scoring.rows) / 16
    if most >= len(scoring.rows):
        assert len(plans) == 1
