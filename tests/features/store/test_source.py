"""What every source of features promises, tried on each of them; and how a store shows itself."""

from __future__ import annotations

import copy
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, build_features, build_header, build_store
from hypothesis import given, settings
from hypothesis import strategies as st

from features.runtime.errors import BottleneckError, InputError
from features.store.joined import JoinedStore
from features.store.kind import FeatureKind
from features.store.projected import ProjectedStore
from features.store.projection import Projection
from features.store.reader import FeatureStore
from features.store.relabelled import RelabelledStore
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


def projected(folder: Path) -> tuple[FeatureSource, np.ndarray]:
    """Onto two of the channels, in the other order."""
    source, features = plain(folder)
    basis = np.eye(features.shape[-1], dtype=np.float32)[:, [1, 0]]
    return ProjectedStore(source, Projection(basis, source.fingerprint)), features[..., [1, 0]]


def relabelled(folder: Path) -> tuple[FeatureSource, np.ndarray]:
    source, features = plain(folder)
    return RelabelledStore(source, (*reversed(source.classes), "another")), features


@pytest.fixture(scope="module", params=[plain, joined, projected, relabelled], ids=lambda make: make.__name__)
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


def test_rows_are_taken_by_lists_masks_and_from_the_end(made):
    source, features = made
    assert np.array_equal(source.take([25, 9, 4], [0, 1, 0]), features[[25, 9, 4], [0, 1, 0]])
    assert np.array_equal(source.take((25, -1, 4), np.int64(1)), features[[25, -1, 4], 1])
    assert source.take([]).shape == (0, *features.shape[1:])
    assert source.take([], []).shape == (0, *features.shape[2:])
    mask = features[:, 0, 0, 0, 0] > np.median(features[:, 0, 0, 0, 0])
    each = np.arange(mask.sum(), dtype=np.uint8) % 2
    assert np.array_equal(source.take(mask, each), features[np.flatnonzero(mask), each])
    assert np.array_equal(source.take(mask.tolist()), features[mask])


@pytest.mark.parametrize(
    ("rows", "views", "message"),
    [
        ([0, ROWS], None, f"rows: expected whole numbers below {ROWS}, found {ROWS}"),
        ([-ROWS - 1], 0, f"rows: expected whole numbers below {ROWS}, found {-ROWS - 1}"),
        ([0.0], None, f"rows: expected whole numbers below {ROWS}, found values of float64"),
        (3, None, r"rows: expected an array of shape \(1,\), found \(\)"),
        ([True, False], None, rf"rows: expected an array of shape \({ROWS},\), found \(2,\)"),
        ([0, 1], 2, "views: expected whole numbers below 2, found 2"),
        ([0, 1], [True, False], "views: expected whole numbers below 2, found values of bool"),
        ([0, 1], [0], r"views: expected an array of shape \(2,\), found \(1,\)"),
    ],
)
def test_rows_and_views_that_are_not_there_are_refused(made, rows, views, message):
    with pytest.raises(InputError, match=message):
        made[0].take(rows, views)


def test_a_copy_reads_its_own_file_or_none(tmp_path):
    path = build_store(tmp_path / "own.h5", rows=ROWS, views=VIEWS)
    store, (_, right) = FeatureStore(path), next(FeatureStore(path).chunks())
    for again in (pickle.loads(pickle.dumps(store)), copy.copy(store), copy.deepcopy(JoinedStore(store, store))):
        another = FeatureStore(build_store(tmp_path / "other.h5", rows=ROWS, views=VIEWS, seed=5))
        assert np.array_equal(next(again.chunks())[1], right)
        assert np.array_equal(again.take([3, 1]), right[[3, 1]])
        another.path.unlink()
    assert len(pickle.dumps(store)) < 1000
    build_store(tmp_path / "new.h5", rows=ROWS - 6, views=VIEWS).replace(path)
    with pytest.raises(InputError, match="of the store that was copied or pickled"):
        copy.copy(store)


@pytest.mark.parametrize("limit", [1, 600, 10**9])
def test_chunks_are_all_rows_in_order_within_the_limit(made, limit):
    source, features = made
    chunks = list(source.chunks(limit))
    assert [start for start, _ in chunks] == np.cumsum([0, *(len(chunk) for _, chunk in chunks)])[:-1].tolist()
    assert np.array_equal(np.concatenate([chunk for _, chunk in chunks]), features)
    assert all(chunk.dtype == features.dtype for _, chunk in chunks)
    assert all(chunk.nbytes <= max(limit, source.header.row_bytes) for _, chunk in chunks)
    assert (len(chunks) == ROWS) == (limit == 1)


def test_stores_are_read_without_a_map_which_limits_count_as_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "memmap", lambda *_, **__: [].pop())
    source, features = plain(tmp_path)
    assert np.array_equal(source.take([7, 3, 4, 4]), features[[7, 3, 4, 4]])
    assert np.array_equal(next(source.chunks())[1], features)


def test_a_file_that_is_cut_while_it_is_read_ends_no_process(tmp_path):
    source, features = plain(tmp_path)
    os.truncate(source.path, source._features_at + source.header.row_bytes)
    assert np.array_equal(source.take([0]), features[:1])
    for read in (lambda: source.take([0, ROWS - 1], 0), lambda: list(source.chunks())):
        with pytest.raises(BottleneckError, match=r"plain\.h5: the file was cut while it was read"):
            read()


def test_nothing_beyond_the_stores_reads_their_arrays():
    files = [path for name in ("features", "heads", "search") for path in (ROOT / name).rglob("*.py")]
    raw = re.compile(r"store\.features\b|\.features\[|memmap|fromfile|_features_at")
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
