"""What every source of features promises, tried on each of them; and how a store shows itself."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, build_features, build_header, build_store
from hypothesis import given, settings
from hypothesis import strategies as st

from features.store.joined import JoinedStore
from features.store.kind import FeatureKind
from features.store.reader import FeatureStore
from features.store.schema import RowState
from features.store.source import FeatureSource
from features.store.writer import StoreWriter

ROWS, VIEWS = 30, ("identity", "flip")


def plain(folder: Path) -> tuple[FeatureSource, np.ndarray]:
    path = build_store(folder / "plain.h5", rows=ROWS, views=VIEWS, skipped=[4])
    features = build_features(build_header(rows=ROWS, views=VIEWS))
    features[4] = 0
    return FeatureStore(path), features


def joined(folder: Path) -> tuple[FeatureSource, np.ndarray]:
    """Of two dtypes, so that the first one's features come out as the second one's."""
    parts = [{"rows": 18, "seed": 1, "dtype": "float16"}, {"rows": 12, "seed": 2, "dtype": "float32"}]
    paths = [build_store(folder / f"{part['seed']}.h5", views=VIEWS, skipped=[4], **part) for part in parts]
    features = [
        build_features(build_header(rows=part["rows"], views=VIEWS, dtype=part["dtype"]), seed=part["seed"])
        for part in parts
    ]
    for one in features:
        one[4] = 0
    return JoinedStore(*map(FeatureStore, paths)), np.concatenate(features)


@pytest.fixture(scope="module", params=[plain, joined], ids=lambda make: make.__name__)
def made(request, tmp_path_factory) -> tuple[FeatureSource, np.ndarray]:
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


def test_what_it_says_of_itself_fits_its_features(made):
    source, features = made
    assert len(source) == len(source.header) == len(source.labels) == len(source.patients) == len(source.done) == ROWS
    assert source.header.shape == features.shape
    assert source.header.dtype == features.dtype
    assert source.header.row_values == features[0].size
    assert source.header.row_bytes == features[0].nbytes
    assert source.labels.tolist() == list(source.header.labels)
    assert source.patients.tolist() == list(source.header.patients)
    assert source.usable.tolist() == np.flatnonzero(features.any(axis=(1, 2, 3, 4))).tolist()
    assert source.classes == source.header.classes
    assert source.complete
    assert len(source.fingerprint) == 64
    for array in (source.labels, source.patients, source.done):
        assert not array.flags.writeable


@given(data=st.data(), rows=st.lists(st.integers(0, ROWS - 1), min_size=0, max_size=50))
@settings(max_examples=60)
def test_rows_are_taken_in_any_order_and_view(made, data, rows):
    source, features = made
    rows = np.array(rows, np.int64)
    each = st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows))
    views = data.draw(st.one_of(st.none(), st.integers(0, 1), each.map(lambda views: np.array(views, np.int64))))
    taken = source.take(rows, views)
    assert taken.dtype == features.dtype
    assert np.array_equal(taken, features[rows] if views is None else features[rows, views])
    taken[:] = 1  # a copy: the file is as it was
    assert np.array_equal(source.take(rows), features[rows])


@pytest.mark.parametrize("limit", [1, 600, 10**9])
def test_chunks_are_all_rows_in_order_within_the_limit(made, limit):
    source, features = made
    chunks = list(source.chunks(limit))
    assert [start for start, _ in chunks] == np.cumsum([0, *(len(chunk) for _, chunk in chunks)])[:-1].tolist()
    assert np.array_equal(np.concatenate([chunk for _, chunk in chunks]), features)
    assert all(chunk.dtype == features.dtype for _, chunk in chunks)
    assert all(chunk.nbytes <= max(limit, source.header.row_bytes) for _, chunk in chunks)
    assert (len(chunks) == ROWS) == (limit == 1)


def test_nothing_beyond_the_stores_reads_their_arrays():
    files = [path for name in ("features", "heads", "search") for path in (ROOT / name).rglob("*.py")]
    raw = re.compile(r"store\.features\b|memmap|fromfile|_features_at")
    outside = [path for path in files if path.parent.name != "store" and raw.search(path.read_text(encoding="utf-8"))]
    assert outside == []


def test_a_store_as_a_table(tmp_path):
    header = build_header(rows=6, classes=("a", "b"), batch_size=2)
    header = replace(header, patients=("", *header.patients[1:]))
    states = [RowState.DONE, RowState.SKIPPED]
    with StoreWriter(tmp_path / "s.h5", header) as writer:
        writer.write(range(2), np.zeros((2, *header.shape[1:]), "float16"), np.array(states, np.uint8))
    frame = FeatureStore(tmp_path / "s.h5").to_frame()
    assert list(frame) == ["path", "class", "patient", "state"]
    assert frame["path"].tolist() == list(header.paths)
    assert frame["class"].tolist() == ["a", "a", "a", "b", "b", "b"]
    assert frame["patient"].tolist() == list(header.patients)
    assert frame["state"].tolist() == ["done", "skipped", *["pending"] * 4]


def test_a_store_shows_itself(tmp_path):
    store = FeatureStore(build_store(tmp_path / "s.h5", rows=12, classes=("<b>", "c"), skipped=[3]))
    assert repr(store) == (
        f"<FeatureStore {tmp_path / 's.h5'}: 12 images (1 skipped) of <b> 6, c 6; "
        "2 x 2 x 8 float16 of mobilenet, alpha 0.25>"
    )
    page = store._repr_html_()
    assert "<td>12, 1 skipped</td>" in page
    assert "&lt;b&gt; 6, c 6" in page
    assert "<td>random:0 (sha256 abababababababab)</td>" in page


def test_kinds_differ_by_what_the_features_are_and_by_no_name():
    kind = FeatureKind(feature_shape=(1, 2, 3), backbone="mobilenet", weights="a.h5", weights_sha256="ab")
    assert list(kind.differences(replace(kind, weights="b.h5"))) == []
    other = replace(kind, feature_shape=(3, 2, 1), alpha=0.5, image_size=96)
    found = list(kind.differences(other))
    assert found == [("feature_shape", (1, 2, 3), (3, 2, 1)), ("alpha", None, 0.5), ("image_size", 0, 96)]
    assert [name for name, *_ in kind.differences(other, if_known=True)] == ["feature_shape", "alpha"]
    nameless = FeatureKind(feature_shape=(1, 2, 3))
    assert list(other.differences(nameless, if_known=True)) == [("feature_shape", (3, 2, 1), (1, 2, 3))]


def test_the_kind_of_a_store_is_what_its_header_says_of_the_features():
    header = build_header()
    kind = FeatureKind(feature_shape=header.feature_shape, **header.origin)
    assert list(kind.differences(header)) == list(header.differences(kind)) == []
    assert kind.weights == header.weights
