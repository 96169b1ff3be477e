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
from heads.metrics.scoring import predict_probabilities, score
from heads.model.build import build_head
from heads.model.spec import ADAM_EPSILON, HeadSpec
from heads.model.weights import unbiased, without_statistics


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
    parts = [np.arange(60)[fold::3] for fold in range(3)]
    feed = Feed(store, np.arange(60), memory_bytes=10**9)
    shape = replace(shape_of(6, folds=3), batch=10)
    return Engine(shape, train=feed, validation_rows=parts, dtype="float32"), parts


def folded_plan(parts: list[np.ndarray], epoch: int) -> tuple[EpochPlan, np.ndarray]:
    """Two batches of 10 of every fold's 20 rows, in a mixed order."""
    generator = np.random.default_rng(epoch)
    rows = np.concatenate([generator.permutation(part).reshape(2, 10) for part in parts])
    order = generator.permutation(6)
    return EpochPlan(rows[order], generator.integers(0, 2, (6, 10))), np.repeat(np.arange(3), 2)[order]


@pytest.mark.slow
def test_a_folds_head_is_trained_on_the_other_folds(folded):
    engine, parts = folded
    specs = [
        HeadSpec(conv_width=32, dropout=0, weight_decay=1e-2, dense_layers=1, dense_units=6),
        HeadSpec(conv_width=16, dropout=0, pooling="max", activation="silu"),
    ]
    slots = engine.insert([Newcomer(spec=spec, seeds=(10, 20, 30)) for spec in specs])
    plans = [folded_plan(parts, epoch) for epoch in range(2)]
    for planned, fold_of_batch in plans:
        engine.train_epoch(planned, fold_of_batch)
    losses, accuracies, _ = engine.validate()
    for slot, spec in zip(slots, specs, strict=True):
        for fold, seed in enumerate((10, 20, 30)):
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
            model.set_weights(unbiased(spec, model.get_weights(), 8))  # two epochs of four batches
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
    (slot,) = engine.insert([Newcomer(spec=WATCHED, seeds=(1, 2, 3))])
    engine.train_epoch(*folded_plan(parts, 0))
    before = [engine.save_state(slot, fold=fold) for fold in range(3)]
    only_one = EpochPlan(np.tile(parts[1][:10], (6, 1)), np.zeros((6, 10), np.int64))
    losses = engine.train_epoch(only_one, np.ones(6, np.int32))
    assert_equal_states(before[1], engine.save_state(slot, fold=1))
    assert before[0]["steps"] == 4
    assert engine.save_state(slot, fold=2)["steps"] == 10
    assert losses[0, slot] > 0
    engine.validate()
    engine.remove([slot])
    assert engine.traces == 2  # one program trains, one predicts, whatever the bank has done before
    if keras.backend.backend() == "tensorflow":  # in each the mathematics stands once, not once for each fold
        assert traced == {"gradients": 1, "probabilities": 1}


def counting(function: Callable[..., Any], calls: Counter[str]) -> Callable[..., Any]:
    def counted(*given: Any, **named: Any) -> Any:
        calls[function.__name__] += 1
        return function(*given, **named)

    return counted
