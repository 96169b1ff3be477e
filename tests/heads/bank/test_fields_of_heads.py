"""Heads that differ in what most of a bank's tests hold fixed: optimizer, schedule, poolings that are blocks."""

from __future__ import annotations

import numpy as np
import pytest
from small_bank import BATCH, SHAPE, assert_equal_states, open_store

from features.rows.feed import Feed, plan_epoch
from heads.bank.engine import Engine, Newcomer
from heads.bank.shape import BankShape
from heads.model.fit import Schedule, train_solo
from heads.model.spec import HeadSpec

HEADS = (
    HeadSpec(conv_width=32, pooling="concat", dropout=0.0, optimizer="sgd", learning_rate=0.05),
    HeadSpec(conv_width=16, pooling="gem", dropout=0.0, optimizer="sgd", momentum=0.0, weight_decay=0.02),
    HeadSpec(conv_width=32, pooling="concat", dropout=0.0, optimizer="adamw", weight_decay=0.1, dense_layers=1),
    HeadSpec(conv_width=16, pooling="flatten", dropout=0.0, batch_norm=False, optimizer="sgd", learning_rate=0.02),
    HeadSpec(conv_width=16, pooling="flatten", dropout=0.0, schedule="cosine", learning_rate=0.01),
    HeadSpec(conv_width=16, pooling="average", dropout=0.0, schedule="cosine"),
    HeadSpec(conv_width=16, pooling="average", dropout=0.0),
)
PLAN_SEED, EPOCHS = 9, 4


@pytest.fixture(scope="module")
def feeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Feed, Feed]:
    store = open_store(tmp_path_factory.mktemp("fields"))
    return Feed(store, np.arange(42), memory_bytes=10**9), Feed(store, np.arange(42, 60), memory_bytes=10**9)


@pytest.fixture(scope="module")
def engine(feeds: tuple[Feed, Feed]) -> Engine:
    shape = BankShape.covering(HEADS, pages=10, feature_shape=SHAPE, classes=4, batch=BATCH)
    return Engine(shape, train=feeds[0], validation=feeds[1], dtype="float32")


def epoch_of(engine: Engine, feeds: tuple[Feed, Feed], number: int) -> tuple[np.ndarray, np.ndarray]:
    """Trains one epoch: training losses and validation losses by slot."""
    plan = plan_epoch(feeds[0].rows, batch_size=BATCH, views=2, seed=PLAN_SEED, epoch=number)
    losses, scores = engine.train_epoch(plan), engine.validate()
    engine.update_learning_rates(scores.loss)
    engine.keep(engine.occupied)
    return losses[0], scores.loss[0]


@pytest.mark.slow
def test_each_trains_as_keras_trains_it(engine: Engine, feeds: tuple[Feed, Feed]) -> None:
    slots = engine.insert([Newcomer(spec=spec, seeds=(seed,), epochs=EPOCHS) for seed, spec in enumerate(HEADS)])
    try:
        found = [epoch_of(engine, feeds, number) for number in range(EPOCHS)]
        for seed, (spec, slot) in enumerate(zip(HEADS, slots, strict=True)):
            solo = train_solo(spec, *feeds, Schedule(epochs=EPOCHS, batch_size=BATCH, plan_seed=PLAN_SEED), seed=seed)
            for (trained, validated), record in zip(found, solo.curve, strict=True):
                assert trained[slot] == pytest.approx(record.train_loss, abs=2e-5), spec
                assert validated[slot] == pytest.approx(record.validation.loss, abs=2e-5), spec
            assert solo.best.epoch == EPOCHS or not spec.last_counts
            if solo.best.epoch == EPOCHS:
                for one, other in zip(engine.take_out(slot), solo.weights, strict=True):
                    np.testing.assert_allclose(one, other, atol=2e-4, rtol=2e-4, err_msg=str(spec))
    finally:
        engine.remove(slots)


@pytest.mark.slow
def test_a_saved_head_goes_on_to_the_last_bit(engine: Engine, feeds: tuple[Feed, Feed]) -> None:
    slots = engine.insert([Newcomer(spec=spec, seeds=(seed,), epochs=EPOCHS) for seed, spec in enumerate(HEADS)])
    epoch_of(engine, feeds, 0)
    saved, placements = [engine.save_state(slot) for slot in slots], [engine.placement_of(slot) for slot in slots]
    epoch_of(engine, feeds, 1)
    expected = [engine.save_state(slot) for slot in slots]
    engine.remove(slots)
    back = zip(HEADS, saved, placements, strict=True)
    again = engine.insert(
        [Newcomer(spec=spec, states=(state,), placement=placement) for spec, state, placement in back]
    )
    epoch_of(engine, feeds, 1)
    for slot, state in zip(again, expected, strict=True):
        assert_equal_states(engine.save_state(slot), state)
    engine.remove(again)


def test_a_bank_without_sgd_refuses_it() -> None:
    shape = BankShape.covering(HEADS[-1:], pages=10, feature_shape=SHAPE, classes=4, batch=BATCH)
    shape.require(HEADS[-1])
    with pytest.raises(ValueError, match="optimizer: this bank was made for another, found sgd"):
        shape.require(HeadSpec(conv_width=16, pooling="average", dropout=0.0, optimizer="sgd"))


def test_a_cosine_must_know_its_end(engine: Engine) -> None:
    with pytest.raises(ValueError, match="epochs: expected a number, which a cosine needs, found None"):
        engine.insert([Newcomer(spec=HEADS[4], seeds=(1,))])
