"""Labels of one store in the classes of another."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import build_store
from hypothesis import given
from hypothesis import strategies as st

from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from features.store.relabelled import RelabelledStore, with_classes


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> FeatureStore:
    return FeatureStore(build_store(tmp_path_factory.mktemp("s") / "s.h5", rows=24, classes="ABC", skipped=(3,)))


@given(order=st.permutations("ABCDE"))
def test_every_row_keeps_its_class_and_its_features(store, order):
    seen = with_classes(store, order, known_to="head.hdf5")
    assert seen.classes == tuple(order)
    named = [seen.classes[label] for label in seen.labels]
    assert named == [store.classes[label] for label in store.labels]
    assert seen.header.labels == tuple(seen.labels.tolist())
    assert seen.lacking(seen.usable) == tuple(name for name in order if name in "DE")
    assert np.array_equal(seen.usable, store.usable)
    assert seen.to_frame().equals(store.to_frame())
    for (start, mine), (other, theirs) in zip(seen.chunks(4096), store.chunks(4096), strict=True):
        assert start == other
        assert np.array_equal(mine, theirs)


def test_the_same_list_needs_no_other_store(store):
    assert with_classes(store, [*"ABC"], known_to="head.hdf5") is store
    assert isinstance(with_classes(store, "ABCD", known_to="head.hdf5"), RelabelledStore)


def test_strange_classes_are_named_with_their_images(store):
    known = r"s\.h5: classes: expected none but those of head\.hdf5: B, X, found A \(9 images\), C \(6 images\)"
    with pytest.raises(InputError, match=known):
        with_classes(store, "BX", known_to="head.hdf5")
