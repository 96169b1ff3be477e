"""Cross-validation in the bank: a head for each fold, which sits out its own. Runs on either backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from small_bank import SHAPE, WATCHED, assert_equal_states, open_store, shape_of

from features.rows.feed import EpochPlan, Feed
from features.store.reader import FeatureStore
from heads.bank.engine import Engine, Newcomer
from heads.bank.mathematics import Bank
from heads.bank.partitions import PARTITIONS_AT_ONCE
from heads.metrics.scoring import predict_probabilities, score
from heads.model.build import build_head
from heads.model.spec import ADAM_EPSILON, HeadSpec
from heads.model.weights import unbiased, without_statistics

SEEDS = (10, 20, 30, 40, 50)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return open_store(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def traced():
    """How often the mathematics was called to be traced, from before the engine's first epoch on."""
    calls: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("gradients", "probabilities"):
            patch.setattr(Bank, name, counting(getattr(Bank, name), calls))
        yield calls


@pytest.fixture(scope="module")
def folded(store, traced) -> tuple[Engine, list[np.ndarray]]:
    return engine_of(store, folds=5)


def engine_of(store: FeatureStore, *, folds: int) -> tuple[Engine, list[np.ndarray]]:
    """An empty bank of so many folds, and the rows of each: two batches."""
    parts = [np.arange(60)[fold::folds] for fold in range(folds)]
    feed = Feed(store, np.arange(60), memory_bytes=10**9)
    shape = replace(shape_of(6, folds=folds), batch=60 // folds // 2)
    return Engine(shape, train=feed, validation_rows=parts, dtype="float32"), parts


def folded_plan(parts: list[np.ndarray], epoch: int) -> tuple[EpochPlan, np.ndarray]:
    """Two batches of every fold's rows, in a mixed order."""
    generator, folds, batch = np.random.default_rng(epoch), len(parts), len(parts[0]) // 2
    rows = np.concatenate([generator.permutation(part)[: 2 * batch].reshape(2, batch) for part in parts])
    order, size = generator.permutation(2 * folds), (2 * folds, batch)
    return EpochPlan(rows[order], generator.integers(0, 2, size)), np.repeat(np.arange(folds), 2)[order]


@pytest.mark.slow
def test_a_folds_head_is_trained_on_the_other_folds(folded):
    engine, parts = folded
    specs = [
        HeadSpec(conv_width=32, dropout=0, weight_decay=1e-2, dense_layers=1, dense_units=6),
        HeadSpec(conv_width=16, dropout=0, pooling="max", activation="silu"),
    ]
    slots = engine.insert([Newcomer(spec=spec, seeds=SEEDS) for spec in specs])
    plans = [folded_plan(parts, epoch) for epoch in range(2)]
    for planned, fold_of_batch in plans:
        engine.train_epoch(planned, fold_of_batch)
    losses, accuracies, _ = engine.validate()
    for slot, spec in zip(slots, specs, strict=True):
        for fold, seed in enumerate(SEEDS):
            model = build_head(spec, SHAPE, 4, seed=seed)
            model.set_weights(without_statistics(spec, model.get_weights()))
            adam = keras.optimizers.Adam(
                spec.learning_rate, epsilon=ADAM_EPSILON, weight_decay=spec.weight_decay or None
            )
            model.compile(adam, keras.losses.CategoricalCrossentropy(), jit_compile=False)
            for planned, fold_of_batch in plans:
                for rows, views, of in zip(planned.rows, planned.views, fold_of_batch, strict=True):
                    if of != fold:
                        labels = engine._train.store.labels[rows]
                        model.train_on_batch(engine._train.take(rows, views), np.eye(4, dtype=np.float32)[labels])
            model.set_weights(unbiased(spec, model.get_weights(), 16))  # two epochs of eight batches
            for found, expected in zip(
                engine.take_out(slot, fold=fold, which="current"), model.get_weights(), strict=True
            ):
                np.testing.assert_allclose(found, expected, atol=2e-4, rtol=2e-4, err_msg=f"{spec} fold {fold}")
            feed = Feed(engine._train.store, parts[fold], memory_bytes=10**9)
            expected_score = score(predict_probabilities(model, feed, views=[0]), feed.labels)
            assert losses[fold, slot] == pytest.approx(expected_score.loss, abs=2e-5)
            assert accuracies[fold, slot] == pytest.approx(expected_score.accuracy, abs=1e-6)
    keras.backend.clear_session()
    engine.remove(slots)


def test_a_head_sits_out_its_own_fold_with_every_bit(folded, traced):
    engine, parts = folded
    (slot,) = engine.insert([Newcomer(spec=WATCHED, seeds=SEEDS)])
    engine.train_epoch(*folded_plan(parts, 0))
    before = [engine.save_state(slot, fold=fold) for fold in range(5)]
    losses = engine.train_epoch(*only_of(parts, 1))
    assert_equal_states(before[1], engine.save_state(slot, fold=1))
    assert before[0]["steps"] == 8
    assert [engine.save_state(slot, fold=fold)["steps"] for fold in range(5)] == [18, 8, 18, 18, 18]
    assert losses[0, slot] > 0
    engine.validate()
    engine.remove([slot])
    assert engine.traces == 2  # one program trains, one predicts, whatever the bank has done before
    if keras.backend.backend() == "tensorflow":  # in each the mathematics does not stand once for each fold
        assert traced == {"gradients": PARTITIONS_AT_ONCE, "probabilities": 1}


def test_of_an_odd_number_of_other_folds_none_is_left_out(store):
    engine, parts = engine_of(store, folds=4)
    (slot,) = engine.insert([Newcomer(spec=WATCHED, seeds=SEEDS[:4])])
    engine.train_epoch(*only_of(parts, 2))
    states = [engine.save_state(slot, fold=fold) for fold in range(4)]
    assert [state["steps"] for state in states] == [8, 8, 0, 8]
    assert all(np.any(state["first/kernel"]) == (fold != 2) for fold, state in enumerate(states))


def only_of(parts: list[np.ndarray], fold: int) -> tuple[EpochPlan, np.ndarray]:
    """As many batches as an epoch has, all of one fold."""
    steps, batch = 2 * len(parts), len(parts[0]) // 2
    rows = np.tile(parts[fold][:batch], (steps, 1))
    return EpochPlan(rows, np.zeros((steps, batch), np.int64)), np.full(steps, fold, np.int32)


def counting(function: Callable[..., Any], calls: Counter[str]) -> Callable[..., Any]:
    def counted(*given: Any, **named: Any) -> Any:
        calls[function.__name__] += 1
        return function(*given, **named)

    return counted
