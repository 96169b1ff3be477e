"""Batches: every row of an epoch, equal shapes, decided by seed and epoch, and the same from memory as from disk."""

import numpy as np
import pytest
from conftest import build_features, build_header, build_store
from hypothesis import given
from hypothesis import strategies as st

from features.rows.feed import Feed, plan_epoch, plan_fold_epoch, steps_of
from features.runtime.errors import InputError
from features.store.reader import FeatureStore

row_sets = st.lists(st.integers(0, 10**6), min_size=1, max_size=200, unique=True).map(np.array)
sizes = st.integers(1, 64)
seeds = st.integers(0, 2**40)


@given(rows=row_sets, batch_size=sizes, views=st.integers(1, 4), seed=seeds, epoch=st.integers(0, 500))
def test_a_plan_has_every_row_in_as_few_equal_batches_as_fit(rows, batch_size, views, seed, epoch):
    plan = plan_epoch(rows, batch_size=batch_size, views=views, seed=seed, epoch=epoch)
    steps, batch = plan.rows.shape
    assert len(plan) == steps == -(-len(rows) // batch_size)
    assert batch <= batch_size
    assert 0 <= steps * batch - len(rows) < steps
    values, times = np.unique(plan.rows, return_counts=True)
    assert values.tolist() == sorted(rows.tolist())
    assert times.max() <= 2
    assert plan.views.shape == plan.rows.shape
    assert set(plan.views.ravel().tolist()) <= set(range(views))


@given(each=st.integers(1, 40), folds=st.integers(2, 5), batch_size=sizes)
def test_the_steps_of_a_head_are_those_of_the_folds_that_it_trains_on(each, folds, batch_size):
    parts = np.split(np.arange(folds * each), folds)
    _, of_fold = plan_fold_epoch(parts, batch_size=batch_size, views=1, seed=0, epoch=0)
    assert steps_of(folds * each, folds, batch_size) == np.count_nonzero(of_fold != 0)


@given(rows=row_sets, batch_size=sizes, seed=seeds, epochs=st.tuples(st.integers(0, 500), st.integers(0, 500)))
def test_shapes_are_the_same_in_every_epoch_and_a_plan_is_made_again_alike(rows, batch_size, seed, epochs):
    first, second = (plan_epoch(rows, batch_size=batch_size, views=3, seed=seed, epoch=epoch) for epoch in epochs)
    assert first.rows.shape == second.rows.shape
    again = plan_epoch(rows, batch_size=batch_size, views=3, seed=seed, epoch=epochs[0])
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.views, again.views)


def test_epochs_and_seeds_differ():
    rows = np.arange(100)
    keys = [(seed, epoch) for seed in range(5) for epoch in range(5)]
    plans = [plan_epoch(rows, batch_size=32, views=2, seed=seed, epoch=epoch) for seed, epoch in keys]
    assert len({plan.rows.tobytes() for plan in plans}) == 25
    assert len({plan.views.tobytes() for plan in plans}) == 25


def test_every_row_gets_every_view_evenly():
    rows = np.arange(50)
    counts = np.zeros((50, 4))
    for epoch in range(400):
        plan = plan_epoch(rows, batch_size=10, views=4, seed=7, epoch=epoch)
        np.add.at(counts, (plan.rows, plan.views), 1)
    assert counts.sum(axis=1).tolist() == [400] * 50
    assert counts.min() > 60  # 100 expected, deviation 8.7
    assert counts.max() < 140


def test_rows_come_in_no_favoured_place():
    rows = np.arange(20)
    first = [plan_epoch(rows, batch_size=5, views=1, seed=0, epoch=epoch).rows[0] for epoch in range(400)]
    times = np.bincount(np.concatenate(first), minlength=20)
    assert times.min() > 60
    assert times.max() < 140


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("feed") / "a.h5"
    return FeatureStore(build_store(path, rows=40, views=("identity", "flip", "shift:0:4"), skipped=[5]))


def feeds(store, rows) -> tuple[Feed, Feed]:
    resident, streamed = Feed(store, rows, memory_bytes=10**9), Feed(store, rows, memory_bytes=0)
    assert (resident.resident, streamed.resident) == (True, False)
    return resident, streamed


@given(data=st.data(), seed=seeds, batch_size=st.integers(1, 50))
def test_from_memory_and_from_disk_it_is_the_same_and_the_stores(store, data, seed, batch_size):
    rows = np.array(data.draw(st.lists(st.sampled_from(store.usable.tolist()), min_size=1, unique=True)))
    plan = plan_epoch(rows, batch_size=batch_size, views=3, seed=seed, epoch=0)
    resident, streamed = feeds(store, rows)
    steps = 0
    for step, (one, other) in enumerate(zip(resident.train_batches(plan), streamed.train_batches(plan), strict=True)):
        expected = np.stack(
            [store.features[row, view] for row, view in zip(plan.rows[step], plan.views[step], strict=True)]
        )
        for features, labels in (one, other):
            assert features.dtype == np.float16
            assert np.array_equal(features, expected)
            assert np.array_equal(labels, store.labels[plan.rows[step]])
        steps += 1
    assert steps == len(plan)
    for view in range(3):
        for feed in (resident, streamed):
            batches = list(feed.score_batches(batch_size, view))
            assert np.array_equal(np.concatenate(batches), store.features[np.sort(rows), view])
            assert all(len(batch) == batch_size for batch in batches[:-1])
            assert np.array_equal(feed.labels, store.labels[np.sort(rows)])
            assert np.array_equal(feed.take(rows[::-1], view), store.features[rows[::-1], view])


def test_a_feed_says_what_it_holds(store):
    feed = Feed(store, np.array([3, 1, 2]), memory_bytes=10**9)
    assert feed.rows.tolist() == [1, 2, 3]
    assert (feed.shape, feed.views) == ((2, 2, 8), 3)
    row_bytes = 3 * 2 * 2 * 8 * 2
    assert Feed(store, np.arange(4), memory_bytes=4 * row_bytes).resident
    assert not Feed(store, np.arange(4), memory_bytes=4 * row_bytes - 1).resident


def test_an_epoch_that_is_left_early_ends_its_reader(store):
    feed = Feed(store, store.usable, memory_bytes=0)
    plan = plan_epoch(store.usable, batch_size=4, views=1, seed=0, epoch=0)
    batches = feed.train_batches(plan)
    next(batches)
    batches.close()
    assert next(batches, None) is None


def test_an_error_of_the_reader_arrives_at_the_trainer(store):
    feed = Feed(store, np.arange(4), memory_bytes=0)
    plan = plan_epoch(np.array([39, 40]), batch_size=4, views=1, seed=0, epoch=0)  # there are 40 rows, 0 to 39
    with pytest.raises(InputError, match="rows: expected whole numbers below 40, found 40"):
        list(feed.train_batches(plan))


def test_features_of_the_fixture_are_those_of_the_header(store):
    assert np.array_equal(np.delete(store.features, 5, 0), np.delete(build_features(store.header), 5, 0))
    assert store.header == build_header(rows=40, views=("identity", "flip", "shift:0:4"))
