"""Training epoch by epoch: the same numbers as one call of ``fit``, and own models beside ours."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import keras
import numpy as np
import pytest
from conftest import build_store

from features.rows.feed import Feed
from features.store.reader import FeatureStore
from heads.metrics.scoring import EpochRecord, Score
from heads.model.fit import Batches, DivergedError, Schedule, train_solo
from heads.model.own import OwnSpec
from heads.model.spec import HeadSpec
from heads.model.stepwise import TrainingError, head_trainee, own_trainee, seeded, train_for, train_together, try_step

SPEC = HeadSpec(conv_width=16, dropout=0.3, plateau_patience=1, plateau_factor=0.5, learning_rate=0.5)
SHAPE = (2, 2, 8)


@pytest.fixture(scope="module")
def feeds(tmp_path_factory) -> tuple[Feed, Feed]:
    store = FeatureStore(build_store(tmp_path_factory.mktemp("stepwise") / "store.h5", rows=96))
    rows = store.usable
    return Feed(store, rows[:72], memory_bytes=2**20), Feed(store, rows[72:], memory_bytes=2**20)


def schedule(epochs: int = 4, **options) -> Schedule:
    return Schedule(epochs=epochs, batch_size=24, plan_seed=3, **options)


def batches_of(feed: Feed, **options) -> Batches:
    return Batches(feed, schedule(), **options)


def small(loss: str | None = None, **compiled) -> keras.Model:
    with seeded(5):
        model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(4, "softmax")])
        if loss:
            model.compile(compiled.pop("optimizer", "adam"), loss, **compiled)
    return model


def test_what_one_thread_draws_is_not_disturbed_by_another():
    def drawn(seed: int, mine: Event, others: Event) -> tuple[float, float, float]:
        with seeded(seed):
            mine.set()
            others.wait(0.2)  # a second thread that came in would have set the seed by now
            model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
            return random.random(), np.random.random(), float(model.get_weights()[0].sum())

    over, first, second = Event(), Event(), Event()
    over.set()
    alone = [drawn(seed, over, over) for seed in (1, 2)]
    before = random.getstate()
    with ThreadPoolExecutor(2) as pool:
        beside = [pool.submit(drawn, 1, first, second), pool.submit(drawn, 2, second, first)]
        assert [one.result(20) for one in beside] == alone
    assert random.getstate() == before


@pytest.mark.parametrize("last_counts", [False, True])
def test_epoch_by_epoch_is_one_call_of_fit_bit_by_bit(feeds, last_counts):
    whole = train_solo(SPEC, *feeds, schedule(last_counts=last_counts), seed=7)
    heard: list[EpochRecord] = []
    steps = train_together(
        [head_trainee(SPEC, SHAPE, 4, seed=7)],
        [batches_of(feeds[0])],
        [feeds[1]],
        epochs=4,
        objective="accuracy",
        last_counts=last_counts,
        on_epoch=lambda record: heard.append(record) is None,
    )
    assert steps.best.epoch == (4 if last_counts else whole.best.epoch)
    assert steps.curve == whole.curve == tuple(heard)
    assert steps.curve[0].learning_rate > steps.curve[-1].learning_rate  # the plateau was at work
    assert steps.best == whole.best
    for mine, theirs in zip(steps.weights[0], whole.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(steps.probabilities[0], whole.probabilities)


def test_a_head_that_ends_with_its_cosine_is_not_trained_epoch_by_epoch():
    with pytest.raises(AssertionError, match="cosine"):
        head_trainee(replace(SPEC, schedule="cosine"), SHAPE, 4, seed=7)


def test_models_of_folds_sit_out_their_own_and_are_judged_by_their_mean(feeds):
    folds = [feeds[0].rows[::2], feeds[0].rows[1::2]]
    batches = [batches_of(feeds[0], folds=folds, left_out=fold) for fold in (0, 1)]
    for fold, one in enumerate(batches):
        one.start(1)
        assert set(one.plan.rows.ravel().tolist()) == set(folds[1 - fold].tolist())
    trained = train_together(
        [head_trainee(SPEC, SHAPE, 4, seed=fold) for fold in (0, 1)],
        batches,
        [Feed(feeds[0].store, rows, memory_bytes=0) for rows in folds],
        epochs=2,
        objective="accuracy",
        on_epoch=lambda record: record.epoch < 1,
    )
    assert len(trained.curve) == 1  # stopped by on_epoch
    accuracies = [
        float((probabilities.argmax(axis=1) == feeds[0].store.labels[rows]).mean())
        for probabilities, rows in zip(trained.probabilities, folds, strict=True)
    ]
    assert trained.best.validation.accuracy == pytest.approx(np.mean(accuracies))
    assert not np.array_equal(trained.weights[0][0], trained.weights[1][0])


def test_a_model_that_is_not_compiled_is_trained_as_the_article_s_head(feeds):
    trainee = own_trainee(small(), "mine.py")
    assert trainee.plateau is not None
    assert float(trainee.model.optimizer.learning_rate) == pytest.approx(1e-3)
    assert isinstance(trainee.model.loss, keras.losses.CategoricalCrossentropy)
    before = trainee.model.get_weights()
    train_for(trainee, batches_of(feeds[0]), [0.0], epochs=1)  # the rates that are told count
    np.testing.assert_array_equal(trainee.model.get_weights()[0], before[0])


@pytest.mark.parametrize(
    ("loss", "one_hot"),
    [
        ("categorical_crossentropy", True),
        ("sparse_categorical_crossentropy", False),
        (keras.losses.SparseCategoricalCrossentropy(), False),
        (keras.losses.sparse_categorical_crossentropy, False),
        (keras.losses.CategoricalFocalCrossentropy(), True),
    ],
)
def test_a_compiled_model_keeps_optimizer_loss_and_metrics(feeds, loss, one_hot):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)
    trainee = own_trainee(small(loss, optimizer=keras.optimizers.SGD(rate), metrics=["accuracy"]), "mine.py")
    assert (trainee.one_hot, trainee.plateau) == (one_hot, None)
    try_step(trainee, SHAPE, 4)
    trained = train_together(
        [trainee],
        [batches_of(feeds[0], one_hot=one_hot)],
        [feeds[1]],
        epochs=2,
        objective="loss",
        on_epoch=lambda record: True,
    )
    assert trained.curve[1].learning_rate < trained.curve[0].learning_rate <= 0.1
    assert np.isfinite(trained.best.validation.loss)


def test_what_an_own_model_stumbles_over_is_a_line(feeds):
    trainee = own_trainee(small("no_such_loss"), "mine.py")
    with pytest.raises(TrainingError, match=r"mine\.py: .*ValueError .*no_such_loss"):
        try_step(trainee, SHAPE, 4)
    wild = own_trainee(small("categorical_crossentropy", optimizer=keras.optimizers.SGD(float("inf"))), "mine.py")
    with pytest.raises(DivergedError, match="diverged in epoch"):
        train_together(
            [wild], [batches_of(feeds[0])], [feeds[1]], epochs=3, objective="accuracy", on_epoch=lambda record: True
        )


def test_a_seed_decides_what_layers_draw_and_disturbs_nobody():
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    keras.utils.set_random_seed(7)
    drawn = keras.random.uniform((3,)), keras.random.uniform((3,))
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(keras.random.uniform((3,)), drawn[0])
    np.random.seed(1)
    first, second = small(), small()
    np.testing.assert_array_equal(first.get_weights()[0], second.get_weights()[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.testing.assert_array_equal(keras.random.uniform((3,)), drawn[1])
    assert Score.mean([Score(1.0, 0.5, 0.5), Score(2.0, 1.0, 1.0)]).accuracy == 0.75


def test_an_own_spec_is_its_function_and_its_parameters():
    spec = OwnSpec("mine:build", {"units": 8, "norm": None, "rate": 0.1})
    assert OwnSpec.from_dict(spec.to_dict()) == spec
    assert spec.identity == OwnSpec("mine:build", {"rate": 0.1, "norm": None, "units": 8}).identity
    assert spec.identity != OwnSpec("mine:other", spec.params).identity
    for wrong in (
        {},
        {"function": 3, "params": {}},
        {"function": "a:b", "params": {"x": [1]}},
        {**spec.to_dict(), "z": 1},
    ):
        with pytest.raises(ValueError, match="own"):
            OwnSpec.from_dict(wrong)
