"""The fused bank: the same heads as one by one, whoever shares it.

Runs on either backend, as all tests of this folder: ``KERAS_BACKEND=jax pytest tests/heads/bank/test_bank.py``. One
engine, compiled once, serves most tests: that heads come and go in it without a trace of each other is itself what is
claimed.
"""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bank import BATCH, EXTREMES, SHAPE, SPECS, WATCHED, assert_equal_states, open_store, shape_of

from features.rows.feed import EpochPlan, Feed, plan_epoch
from features.store.reader import FeatureStore
from heads.bank.backends import default_lanes
from heads.bank.engine import Engine, Newcomer
from heads.bank.exact import Finished, predict_exactly
from heads.bank.shape import BankShape, pages_of
from heads.metrics.scoring import Score, predict_probabilities, score
from heads.model.build import build_head
from heads.model.fit import Schedule, train_solo
from heads.model.spec import HeadSpec
from heads.model.weights import initial_weights

TRAIN, VALIDATION, PLAN_SEED = np.arange(42), np.arange(42, 60), 9


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return open_store(tmp_path_factory.mktemp("bank"))


@pytest.fixture(scope="module")
def feeds(store) -> tuple[Feed, Feed]:
    return Feed(store, TRAIN, memory_bytes=10**9), Feed(store, VALIDATION, memory_bytes=10**9)


@pytest.fixture(scope="module")
def shared(feeds) -> Engine:
    """Holds every kind of head; whoever uses it removes what it inserts (see ``engine``)."""
    return Engine(shape_of(), train=feeds[0], validation=feeds[1], dtype="float32")


@pytest.fixture(scope="module")
def in_bfloat16(feeds) -> Engine:
    """The same in the type that processors with AVX512_BF16 and GPUs multiply fastest, in lanes that are not equal."""
    shape = shape_of(13, lanes=default_lanes("bfloat16"))
    return Engine(shape, train=feeds[0], validation=feeds[1], dtype="bfloat16")


def empty(engine: Engine) -> None:
    engine.remove([slot for slot, spec in enumerate(engine.specs) if spec is not None])


@pytest.fixture
def engine(shared):
    empty(shared)
    yield shared
    empty(shared)
    assert shared.traces <= 2  # training and scoring, whatever was done


def plan(engine: Engine, epoch: int) -> EpochPlan:
    return plan_epoch(TRAIN, batch_size=engine.shape.batch, views=2, seed=PLAN_SEED, epoch=epoch)


def run_epoch(engine: Engine, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trains and scores one epoch and moves the learning rates on: train losses, losses, accuracies."""
    train = engine.train_epoch(plan(engine, epoch))
    losses, accuracies, _ = engine.validate()
    engine.update_learning_rates(losses)
    return train, losses, accuracies


class Curve:
    """What the engine says of one head, epoch by epoch, and its best weights by the study's rule."""

    def __init__(self, engine: Engine, slot: int) -> None:
        self.engine, self.slot = engine, slot
        self.scores: list[Score] = []
        self.rates: list[float] = []
        self.train: list[float] = []
        self.best = 0

    def note(self, train: np.ndarray, losses: np.ndarray, accuracies: np.ndarray, rate: float) -> bool:
        ranking_score = self.engine.validate().ranking_score if self.engine.objective != "accuracy" else accuracies
        self.scores.append(Score(*(float(numbers[0, self.slot]) for numbers in (losses, accuracies, ranking_score))))
        self.train.append(float(train[0, self.slot]))
        self.rates.append(rate)
        improved = self.scores[-1].better_than(self.scores[self.best] if len(self.scores) > 1 else None)
        self.best = len(self.scores) - 1 if improved else self.best
        return improved


def follow(engine: Engine, curves: dict[int, Curve], epochs: range) -> None:
    for epoch in epochs:
        rates = engine.learning_rates.rates.copy()
        result = run_epoch(engine, epoch)
        improved = np.zeros(result[1].shape, bool)
        for slot, curve in curves.items():
            improved[0, slot] = curve.note(*result, float(rates[0, slot]))
        engine.keep(improved)


def assert_same_as_solo(curve: Curve, spec: HeadSpec, feeds, seed: int, first_epoch: int = 0, **more) -> None:
    epochs = len(curve.scores)
    schedule = Schedule(epochs=epochs, batch_size=BATCH, plan_seed=PLAN_SEED, first_epoch=first_epoch, **more)
    solo = train_solo(spec, *feeds, schedule, seed=seed)
    assert curve.rates == [record.learning_rate for record in solo.curve], spec
    assert curve.best == solo.best.epoch - 1, spec
    for found, record in zip(curve.scores, solo.curve, strict=True):
        assert found.loss == pytest.approx(record.validation.loss, abs=2e-5), (spec, record.epoch)
        assert found.accuracy == pytest.approx(record.validation.accuracy, abs=1e-6), (spec, record.epoch)
        assert found.ranking_score == pytest.approx(record.validation.ranking_score, abs=2e-5), (spec, record.epoch)
    assert curve.train == pytest.approx([record.train_loss for record in solo.curve], abs=2e-5), spec
    weights = curve.engine.take_out(curve.slot)
    assert [array.shape for array in weights] == [array.shape for array in solo.weights]
    for found, expected in zip(weights, solo.weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-4, rtol=2e-4, err_msg=str(spec))


# --- as one by one --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=4, derandomize=True)
@given(specs=st.lists(SPECS, min_size=3, max_size=4, unique=True), first_seed=st.integers(0, 1000))
def test_fused_equals_solo(engine, feeds, specs, first_seed):
    """Five epochs; the last head joins after two of them, into pages that another has left."""
    empty(engine)
    leaver = HeadSpec(conv_width=48, dropout=0.3)
    seeds = [first_seed + number for number in range(len(specs))]
    room = engine.shape.pages - pages_of(leaver)
    while sum(map(pages_of, specs)) > room:
        specs = specs[1:]
    gone, *slots = engine.insert(
        [Newcomer(spec=leaver, seeds=(77,))]
        + [Newcomer(spec=spec, seeds=(seed,)) for spec, seed in zip(specs[:-1], seeds, strict=False)]
    )
    curves = {slot: Curve(engine, slot) for slot in slots}
    follow(engine, curves, range(2))
    engine.remove([gone])
    (late,) = engine.insert([Newcomer(spec=specs[-1], seeds=(seeds[-1],))])
    curves[late] = Curve(engine, late)
    follow(engine, curves, range(2, 5))
    for slot, spec, seed in zip(slots, specs, seeds, strict=False):
        assert_same_as_solo(curves[slot], spec, feeds, seed)
    assert_same_as_solo(curves[late], specs[-1], feeds, seeds[-1], first_epoch=2)


def test_fused_equals_solo_with_class_weights_and_another_objective(feeds):
    more = {"objective": "auc", "class_weights": (0.5, 3.0, 1.0, 1.5)}
    specs = [HeadSpec(dropout=0, label_smoothing=0.1), HeadSpec(conv_width=16, dropout=0)]
    shape = BankShape.covering(specs, pages=6, feature_shape=SHAPE, classes=4, batch=BATCH)
    engine = Engine(shape, train=feeds[0], validation=feeds[1], dtype="float32", **more)
    slots = engine.insert([Newcomer(spec=spec, seeds=(seed,)) for seed, spec in enumerate(specs)])
    curves = {slot: Curve(engine, slot) for slot in slots}
    follow(engine, curves, range(4))
    for seed, (slot, spec) in enumerate(zip(slots, specs, strict=True)):
        assert_same_as_solo(curves[slot], spec, feeds, seed, **more)
    assert any(found.ranking_score != found.accuracy for curve in curves.values() for found in curve.scores)


# --- neighbours -----------------------------------------------------------------------------------------------------

NEIGHBOURS = [
    HeadSpec(conv_width=48),
    HeadSpec(conv_width=16, pooling="max"),
    HeadSpec(conv_width=16, batch_norm=False),
]


def watched_state(engine: Engine, *, before: int, rate: float = 1e-3, swap: bool = False) -> dict:
    """Trains WATCHED for four epochs behind some neighbours; returns its whole state."""
    others = [replace(spec, learning_rate=rate) for spec in NEIGHBOURS]
    arrivals = [Newcomer(spec=spec, seeds=(50 + number,)) for number, spec in enumerate(others)]
    arrivals.insert(before, Newcomer(spec=WATCHED, seeds=(4,)))
    slots = engine.insert(arrivals)
    mine = slots[before]
    for epoch in range(4):
        if swap and epoch == 2:
            engine.remove([slot for slot in slots if slot != mine])
            slots = [*engine.insert([Newcomer(spec=EXTREMES[1], seeds=(60,))]), mine]
        _, losses, _ = run_epoch(engine, epoch)
        engine.keep(np.arange(engine.shape.slots)[None] == mine if epoch == 1 else np.zeros(losses.shape, bool))
        if rate > 1 and epoch == 3:
            assert np.isnan(losses[0, [slot for slot in slots if slot != mine]]).any()
    state = engine.save_state(mine)
    engine.remove(slots)
    return state


@pytest.mark.parametrize("which", ["engine", "in_bfloat16"])
def test_neighbours_change_no_bit(which, request):
    """Replaced, or gone to NaN: with the same number of pages a head's state is the same to the last bit."""
    engine = request.getfixturevalue(which)
    alone = watched_state(engine, before=0)
    assert_equal_states(alone, watched_state(engine, before=0, swap=True))
    assert_equal_states(alone, watched_state(engine, before=0, rate=1e30))


@pytest.mark.slow
def test_another_place_or_bank_makes_no_difference(engine, feeds):
    """Other pages, scattered pages, another number of pages: the same up to how a product is blocked."""
    reference = watched_state(engine, before=0)
    holes = engine.insert([Newcomer(spec=HeadSpec(conv_width=16), seeds=(number,)) for number in range(4)])
    engine.remove(holes[::2])  # pages 0 and 2 are free, so the next head of two pages is scattered
    larger = Engine(shape_of(17), train=feeds[0], validation=feeds[1], dtype="float32")
    for other in (watched_state(engine, before=0), watched_state(larger, before=3)):
        assert other["steps"] == reference["steps"] == 12
        for name in (name for name in reference if name.startswith(("weights", "best", "first"))):
            np.testing.assert_allclose(other[name], reference[name], atol=2e-5, rtol=2e-4, err_msg=name)


ARRIVALS = [Newcomer(spec=spec, seeds=(number,)) for number, spec in enumerate([*NEIGHBOURS, WATCHED])]


def saved_and_gone_on(engine: Engine) -> tuple[list[dict], list[dict]]:
    """States of ``ARRIVALS`` after three epochs, of which the second was kept, and after two more."""
    slots = engine.insert(ARRIVALS)
    for epoch in range(3):
        run_epoch(engine, epoch)
        if epoch == 1:
            engine.keep(np.ones((1, engine.shape.slots), bool))
    saved = [engine.save_state(slot) for slot in slots]
    for epoch in range(3, 5):
        run_epoch(engine, epoch)
    expected = [engine.save_state(slot) for slot in slots]
    engine.remove(slots)
    return saved, expected


def gone_on(engine: Engine, saved: list[dict]) -> list[dict]:
    back = [Newcomer(spec=one.spec, states=(state,)) for one, state in zip(ARRIVALS, saved, strict=True)]
    places = engine.insert(back)
    for epoch in range(3, 5):
        run_epoch(engine, epoch)
    return [engine.save_state(place) for place in places]


def test_saved_state_goes_on_to_the_last_bit(engine):
    saved, expected = saved_and_gone_on(engine)
    assert saved[3]["weights/dense"].shape == (32 * 4, 7)  # trimmed to the head's own shapes
    assert not np.array_equal(expected[0]["weights/kernel"], saved[0]["weights/kernel"])
    np.testing.assert_array_equal(expected[0]["best/kernel"], saved[0]["best/kernel"])
    for found, wanted in zip(gone_on(engine, saved), expected, strict=True):
        assert_equal_states(found, wanted)


@pytest.mark.slow
def test_saved_state_goes_on_in_a_larger_bank(engine, feeds):
    saved, expected = saved_and_gone_on(engine)
    larger = Engine(shape_of(13), train=feeds[0], validation=feeds[1], dtype="float32")
    for found, wanted in zip(gone_on(larger, saved), expected, strict=True):
        assert found.keys() == wanted.keys()
        for name in found:
            if wanted[name].dtype.kind == "f":
                np.testing.assert_allclose(found[name], wanted[name], atol=2e-5, rtol=2e-4, err_msg=name)
            else:
                assert found[name] == wanted[name], name


def test_saved_state_goes_on_to_the_last_bit_in_bfloat16(in_bfloat16):
    saved, expected = saved_and_gone_on(in_bfloat16)
    for found, wanted in zip(gone_on(in_bfloat16, saved), expected, strict=True):
        assert_equal_states(found, wanted)
    empty(in_bfloat16)


LANES = pytest.mark.skipif(default_lanes("bfloat16") == 1, reason="has one lane on this backend")


def seen_in(engine: Engine) -> tuple[list[list[float]], list[dict]]:
    """What heads come to that come and go, in pages that are spread: losses and accuracies, and states."""
    arrivals = [Newcomer(spec=spec, seeds=(number,)) for number, spec in enumerate([WATCHED, *EXTREMES, *NEIGHBOURS])]
    slots = engine.insert(arrivals[:5])
    run_epoch(engine, 0)
    engine.remove([slots[1]])
    slots[1:2] = engine.insert(arrivals[5:6])
    numbers = [array[0, slots].tolist() for array in run_epoch(engine, 1)]
    spread = set(engine.shape.lane_of(engine.table.pages_of_slot(slots[3])))
    assert (len(spread) > 1) == (engine.shape.lanes > 1)
    return numbers, [engine.save_state(slot) for slot in slots]


def assert_same_in_one_lane(engine: Engine, feeds) -> None:
    alone = Engine(replace(engine.shape, lanes=1), train=feeds[0], validation=feeds[1], dtype="bfloat16")
    (numbers, states), (expected, wanted) = seen_in(engine), seen_in(alone)
    assert numbers == expected
    for one, other in zip(states, wanted, strict=True):
        assert_equal_states(one, other)


@LANES
def test_lanes_change_no_bit(in_bfloat16, feeds):
    """In one lane or several, equal ones or not: heads, losses and probabilities are the same to the last bit."""
    assert_same_in_one_lane(in_bfloat16, feeds)
    empty(in_bfloat16)


@LANES
@pytest.mark.slow
@pytest.mark.parametrize(("pages", "lanes"), [(12, 2), (12, 5), (13, 5)])
def test_any_number_of_lanes_changes_no_bit(feeds, pages, lanes):
    engine = Engine(shape_of(pages, lanes=lanes), train=feeds[0], validation=feeds[1], dtype="bfloat16")
    assert_same_in_one_lane(engine, feeds)


def test_removed_heads_leave_nothing_behind(engine):
    slots = engine.insert([Newcomer(spec=spec, seeds=(1,)) for spec in EXTREMES])
    run_epoch(engine, 0)
    engine.keep(np.ones((1, engine.shape.slots), bool))
    engine.remove(slots)
    for part in ("weights", "first", "second", "best", "counters"):
        everywhere = {sort: np.arange(count) for sort, count in engine.shape.places.items()}
        laid = engine._program.read(part, 0, everywhere)
        assert not any(array.any() for group in laid.values() for array in group.values()), part
    with pytest.raises(KeyError, match="holds no head"):
        engine.take_out(slots[0])


# --- scores, streaming, dtypes --------------------------------------------------------------------------------------


def test_exact_scores_are_those_of_plain_keras(engine, feeds):
    kinds = [*EXTREMES, HeadSpec(conv_width=16, dense_layers=1, dense_units=5)]
    slots = engine.insert([Newcomer(spec=spec, seeds=(number,)) for number, spec in enumerate(kinds)])
    for epoch in range(2):
        run_epoch(engine, epoch)
    engine.keep(np.ones((1, engine.shape.slots), bool))
    heads = [Finished(spec=spec, weights=engine.take_out(slot)) for spec, slot in zip(kinds, slots, strict=True)]
    losses, accuracies, _ = engine.validate()
    found = [engine.score_predicted(one) for one in engine.predict_exactly(heads)]
    assert engine.predict_exactly([]) == []
    apart = predict_exactly(heads, feeds[1], feeds[1].rows, engine.shape)  # as a bank does that trains in bfloat16
    for one, exact in zip(apart, found, strict=True):
        assert engine.score_predicted(one).loss == pytest.approx(exact.loss, abs=1e-5)
    for head, slot, exact in zip(heads, slots, found, strict=True):
        model = build_head(head.spec, SHAPE, 4)
        model.set_weights(head.weights)
        expected = score(predict_probabilities(model, feeds[1]), feeds[1].labels)
        assert exact.loss == pytest.approx(expected.loss, abs=1e-5)
        assert exact.accuracy == expected.accuracy
        of_epoch = score(predict_probabilities(model, feeds[1], views=[0]), feeds[1].labels)
        assert losses[0, slot] == pytest.approx(of_epoch.loss, abs=1e-5)
        assert accuracies[0, slot] == pytest.approx(of_epoch.accuracy, abs=1e-6)
    keras.backend.clear_session()


def test_many_heads_that_end_together_are_scored_a_few_rows_at_a_time(feeds, monkeypatch):
    feed, kinds = feeds[1], [HeadSpec(conv_width=64), HeadSpec(conv_width=32, pooling="average")]
    heads = [Finished(spec=spec, weights=initial_weights(spec, SHAPE, 4, seed=1)) for spec in kinds]
    expected = predict_exactly(heads, feed, feed.rows, shape_of())
    taken: list[int] = []

    class Counted(Feed):
        def take(self, rows, views):
            taken.append(len(rows))
            return feed.take(rows, views)

    monkeypatch.setattr("heads.bank.exact.MOST_BYTES", 8 * 4 * 96 * SHAPE[0] * SHAPE[1])  # of eight rows
    found = predict_exactly(heads, Counted(feed.store, feed.rows, memory_bytes=0), feed.rows, shape_of())
    assert max(taken) == 8
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_streamed_equals_resident(engine, feeds):
    streamed = Engine(engine.shape, train=feeds[0], validation=feeds[1], dtype="float32", resident=False)
    states, results = [], []
    for each in (engine, streamed):
        (slot,) = each.insert([Newcomer(spec=WATCHED, seeds=(4,))])
        for epoch in range(2):
            result = run_epoch(each, epoch)
        results.append([part[0, slot] for part in result])
        states.append(each.save_state(slot))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)
    for name in states[0]:
        if states[0][name].dtype.kind == "f":
            np.testing.assert_allclose(states[0][name], states[1][name], atol=1e-6, rtol=1e-5, err_msg=name)
    assert streamed.traces == 2


@pytest.mark.slow
def test_bfloat16_learns_as_well(feeds):
    specs = [
        HeadSpec(conv_width=32, learning_rate=5e-3),
        HeadSpec(conv_width=16, learning_rate=5e-3, pooling="average"),
    ]
    results = []
    for dtype in ("bfloat16", "float32"):
        shape = BankShape.covering(specs, pages=6, feature_shape=SHAPE, classes=4, batch=BATCH)
        bank = Engine(shape, train=feeds[0], validation=feeds[1], dtype=dtype)
        assert bank.dtype == dtype
        slots = bank.insert([Newcomer(spec=spec, seeds=(1,)) for spec in specs])
        for epoch in range(40):
            _, losses, accuracies = run_epoch(bank, epoch)
        results.append((losses[0, slots], accuracies[0, slots]))
    assert results[0][0] == pytest.approx(results[1][0], abs=0.1)
    assert (results[0][1] > 0.7).all()  # of 18 rows, chance 0.25


def test_what_does_not_fit_is_refused_and_changes_nothing(engine):
    def attempt(spec: HeadSpec, seeds: tuple[int, ...] = (1,), **more) -> None:
        engine.insert([Newcomer(spec=HeadSpec(conv_width=16), seeds=(1,)), Newcomer(spec=spec, seeds=seeds, **more)])

    for spec, message in (
        (
            HeadSpec(conv_width=192),
            r"free pages, slots and tiles: expected at most \(12, 12, 12\), found \(13, 2, 13\)",
        ),
        (HeadSpec(conv_width=16, dense_layers=1, dense_units=64), "dense_units: this bank was made for at most 9"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt(spec)
    with pytest.raises(ValueError, match="one for each of 1 folds, found 2"):
        attempt(HeadSpec(conv_width=16), seeds=(1, 2))
    with pytest.raises(ValueError, match="rows in a batch: expected 14, found 3"):
        engine.train_epoch(EpochPlan(np.zeros((2, 3), np.int64), np.zeros((2, 3), np.int64)))
    assert engine.table.free == 12
    assert engine.specs.count(None) == 12
    with pytest.raises(ValueError, match="pages: expected at least 3"):
        shape_of(2)


def test_only_program_modules_import_a_backend():
    knowing = {
        str(path.relative_to(ROOT))
        for package in ("features", "heads", "search")
        for path in (ROOT / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(("import tensorflow", "import jax", "from tensorflow", "from jax"))
    }
    programs = {"heads/bank/on_tensorflow.py", "heads/bank/on_jax.py"}
    others = {"heads/files/on_tensorflow.py", "features/runtime/keras_settings.py", "features/runtime/jax_devices.py"}
    assert knowing == programs | others
