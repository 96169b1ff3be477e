"""Two stores read as one."""

import numpy as np
import pytest
from conftest import build_store

from features.rows.feed import Feed, plan_epoch
from features.store.joined import JoinedStore
from features.store.reader import FeatureStore


@pytest.fixture
def stores(tmp_path):
    first = build_store(tmp_path / "first.h5", rows=24, views=("identity", "flip"), seed=1)
    second = build_store(tmp_path / "second.h5", rows=12, views=("identity", "flip"), seed=2, dtype="float32")
    return FeatureStore(first), FeatureStore(second)


def test_rows_are_those_of_the_first_store_and_then_of_the_second(stores):
    joined = JoinedStore(*stores)
    assert len(joined) == 36
    assert joined.header.shape == (36, 2, 2, 2, 8)
    assert joined.header.dtype == "float32"
    for resident in (0, 2**30):
        feed = Feed(joined, np.arange(0, 36, 2), memory_bytes=resident)
        assert feed.resident == bool(resident)
        plan = plan_epoch(feed.rows, batch_size=5, views=2, seed=3, epoch=0)
        for (features, labels), rows, views in zip(feed.train_batches(plan), plan.rows, plan.views, strict=True):
            for mine, label, row, view in zip(features, labels, rows, views, strict=True):
                store, place = (stores[0], row) if row < 24 else (stores[1], row - 24)
                np.testing.assert_array_equal(mine, store.features[place, view])
                assert label == store.labels[place]


def test_stores_of_other_views_are_not_joined(stores, tmp_path):
    other = FeatureStore(build_store(tmp_path / "other.h5", rows=12))
    with pytest.raises(AssertionError, match="views"):
        JoinedStore(stores[0], other)
