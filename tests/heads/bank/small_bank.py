"""A small store, heads of every kind, and the shape of a bank that holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import build_store
from hypothesis import strategies as st

from features.store.reader import FeatureStore
from heads.bank.shape import BankShape
from heads.model.spec import HeadSpec

SHAPE, BATCH = (2, 2, 8), 14
EXTREMES = [
    HeadSpec(conv_width=16, activation="relu", pooling="flatten", dense_layers=0),
    HeadSpec(conv_width=48, activation="gelu", pooling="average", dense_layers=2, dense_units=9, dense_dropout=0.5),
    HeadSpec(conv_width=32, activation="silu", pooling="max", batch_norm=False),
]
SPECS = st.builds(
    HeadSpec,
    conv_width=st.sampled_from([16, 32, 48]),
    batch_norm=st.booleans(),
    activation=st.sampled_from(["relu", "gelu", "silu"]),
    dropout=st.just(0.0),
    pooling=st.sampled_from(["flatten", "average", "max"]),
    dense_layers=st.integers(0, 2),
    dense_units=st.integers(3, 9),
    learning_rate=st.floats(1e-4, 1e-2),
    weight_decay=st.sampled_from([0.0, 1e-3, 1e-1]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
    plateau_factor=st.floats(0.1, 0.9),
    plateau_patience=st.integers(1, 2),
)
WATCHED = HeadSpec(conv_width=32, dropout=0.4, dense_layers=2, dense_units=7, dense_dropout=0.2, activation="gelu")


def open_store(folder: Path) -> FeatureStore:
    """60 rows in two views."""
    return FeatureStore(build_store(folder / "store.h5", rows=60, views=("identity", "flip")))


def shape_of(pages: int = 12, **more) -> BankShape:
    arguments = {"feature_shape": SHAPE, "classes": 4, "batch": BATCH, **more}
    return BankShape.covering(EXTREMES, pages=pages, **arguments)


def assert_equal_states(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)
