"""Features written by others than the one writer: the same bytes, and never into another file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import build_features, build_header, build_store, fill_store

from features.runtime.errors import BottleneckError
from features.store.feature_writer import FeaturesPlace, FeatureWriter
from features.store.reader import FeatureStore
from features.store.schema import RowState
from features.store.writer import StoreWriter


def opened(place: FeaturesPlace) -> FeatureWriter:
    found = place.opened()
    assert found is not None
    return found


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_two_that_write_rows_beside_the_writer_leave_the_bytes_of_one(tmp_path, order):
    header = build_header(views=("identity", "flip"))
    features, states = build_features(header), np.full(48, RowState.DONE, np.uint8)
    fill_store(tmp_path / "one.h5", header, features, states)
    with StoreWriter(tmp_path / "several.h5", header) as writer:
        place = writer.features_place
        with opened(place) as first, opened(place) as second:
            for number, one in zip(order, (first, second, first), strict=True):
                rows = range(16 * number, 16 * number + 16)
                one.write(rows, features[rows.start : rows.stop])
                assert not FeatureStore(writer.path).done[rows.start : rows.stop].any()
                writer.write(rows, None, states[rows.start : rows.stop])
        writer.finish()
    assert (tmp_path / "several.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()


def test_rows_with_gaps_go_to_their_places(tmp_path):
    header = build_header()
    features = build_features(header)
    with StoreWriter(tmp_path / "s.h5", header) as writer, opened(writer.features_place) as one:
        one.write([1, 2, 40], features[[1, 2, 40]])
    found = FeatureStore(tmp_path / "s.h5").features
    np.testing.assert_array_equal(found[[1, 2, 40]], features[[1, 2, 40]])
    assert not np.delete(found, [1, 2, 40], axis=0).any()


def test_a_file_that_is_not_seen_or_is_another_is_not_opened(tmp_path):
    store = tmp_path / "s.h5"
    with StoreWriter(store, build_header()) as writer:
        place = writer.features_place
    with opened(place):
        pass
    other = build_store(tmp_path / "other.h5")
    other.replace(store)  # of the same name and size, on another disk
    assert place.size == store.stat().st_size
    assert place.opened() is None
    store.unlink()
    assert place.opened() is None


def test_writers_hold_no_descriptor_that_could_read(tmp_path):
    """Opened for reading too, network file systems write back whole pages, with old bytes of others in them."""
    with StoreWriter(tmp_path / "s.h5", build_header()) as writer, opened(writer.features_place):
        ours = [one for one in Path("/proc/self/fd").iterdir() if os.path.realpath(one) == str(writer.path)]
        flags = [Path(f"/proc/self/fdinfo/{one.name}").read_text().split("flags:")[1].split()[0] for one in ours]
        assert [int(one, 8) & os.O_ACCMODE for one in flags] == [os.O_WRONLY] * 2


def test_a_disk_that_fails_is_said_in_one_line(tmp_path, monkeypatch):
    header = build_header()
    with StoreWriter(tmp_path / "s.h5", header) as writer, opened(writer.features_place) as one:

        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(BottleneckError, match=r"s\.h5: disk full"):
            one.write([0], build_features(header)[:1])
