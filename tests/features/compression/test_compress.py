"""``features.compress``: the basis, the pass, what goes on after a kill, and what is refused."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import invoke, succeed
from conftest import build_features, build_header, build_store, fill_store
from hypothesis import given
from hypothesis import strategies as st

import features
from features.compression import compression
from features.compression.directions import SAMPLE, default_training_rows, principal_directions
from features.runtime.errors import InputError
from features.store.check import find_problems
from features.store.joined import JoinedStore
from features.store.projected import ProjectedStore
from features.store.reader import FeatureStore
from features.store.schema import DIGEST_BYTES, RowState

ROWS = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "store.h5"
    return FeatureStore(build_store(path, rows=ROWS, views=("identity", "flip"), shape=(3, 2, 12), skipped=(7,)))


@pytest.fixture
def compressed(source, tmp_path):
    return features.compress(source.path, tmp_path / "small.h5", channels=5, progress=False)


def test_the_compressed_store_holds_the_sources_maps_in_an_orthonormal_basis(source, compressed):
    projection = compressed.header.projection
    assert (projection.channels, projection.kept) == (12, 5) == (12, compressed.header.feature_shape[2])
    np.testing.assert_allclose(projection.basis.T @ projection.basis, np.eye(5), atol=1e-6)
    expected = source.features.astype(np.float64) @ projection.basis.astype(np.float64)
    np.testing.assert_allclose(compressed.features, expected, rtol=2e-3, atol=2e-3)
    assert projection.compressed_from == source.fingerprint == compressed.header.of_backbone.fingerprint
    assert compressed.fingerprint != source.fingerprint
    assert compressed.complete
    assert find_problems(compressed) == []


def test_everything_but_the_channels_carries_over(source, compressed):
    np.testing.assert_array_equal(compressed.done, source.done)
    assert compressed.done[7] == RowState.SKIPPED
    names = ("paths", "labels", "patients", "classes", "views", "sizes", "dtype", "batch_size", "created", "versions")
    for name in (*names, "pages", *source.header.origin):
        assert getattr(compressed.header, name) == getattr(source.header, name), name
    assert compressed.header.of_backbone == source.header


def test_hashes_and_times_of_the_images_carry_over_and_are_compared(tmp_path):
    header = replace(build_header(rows=48), modified=tuple(range(1, 49)))
    hashes = np.random.default_rng(1).integers(1, 256, (2, 48, DIGEST_BYTES), np.uint8)
    for name, contents in zip(("source.h5", "other.h5"), hashes, strict=True):
        fill_store(tmp_path / name, header, contents=contents)
    source = FeatureStore(tmp_path / "source.h5")
    compressed = features.compress(source.path, tmp_path / "small.h5", channels=4, progress=False)
    np.testing.assert_array_equal(compressed.contents, source.contents)
    assert compressed.header.modified == source.header.modified
    assert source.content != compressed.content != ""
    assert find_problems(compressed) == []
    with pytest.raises(InputError, match="contents: expected those of the source"):
        features.compress(tmp_path / "other.h5", compressed.path, channels=4, progress=False)


def test_the_basis_spans_what_is_strongest_and_is_the_training_rows_alone(source, compressed):
    rows = default_training_rows(source)
    assert 0 < len(rows) < len(source.usable)
    maps = source.take(rows).reshape(-1, 12).astype(np.float64)
    values, vectors = np.linalg.eigh(maps.T @ maps)
    cosines = np.abs(np.sum(vectors[:, ::-1][:, :5] * compressed.header.projection.basis, axis=0))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    directions = principal_directions(source, rows)
    np.testing.assert_array_equal(directions.basis[:, :5], compressed.header.projection.basis)
    np.testing.assert_allclose(directions.shares[4], values[::-1][:5].sum() / values.sum(), rtol=1e-5)
    assert directions.shares[-1] == pytest.approx(1)


def test_rows_beyond_the_sample_are_evenly_spaced(source):
    many = np.repeat(source.usable, 40)
    assert len(many) > SAMPLE
    few = many[np.arange(SAMPLE) * len(many) // SAMPLE]
    np.testing.assert_array_equal(principal_directions(source, many).basis, principal_directions(source, few).basis)


@given(data=st.data(), channels=st.integers(1, 12))
def test_a_projected_row_is_the_same_to_the_bit_however_it_is_read(source, data, channels):
    directions = principal_directions(source, source.usable)
    projected = ProjectedStore(source, directions.first(channels))
    rows = np.asarray(data.draw(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=9)))
    views = np.asarray(data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows))))
    whole = np.concatenate([part for _, part in projected.chunks(data.draw(st.integers(1, 10_000)))])
    assert whole.shape == projected.header.shape
    np.testing.assert_array_equal(projected.take(rows), whole[rows])
    np.testing.assert_array_equal(projected.take(rows, views), whole[rows, views])
    np.testing.assert_array_equal(projected.take(rows, 1), whole[rows, 1])


def test_all_channels_lose_nothing(source):
    projection = principal_directions(source, source.usable).first(12)
    projected = ProjectedStore(source, projection).take(source.usable).astype(np.float32)
    np.testing.assert_allclose(projected @ projection.basis.T, source.take(source.usable), atol=5e-3)


class _KilledError(Exception):
    pass


def test_a_compression_that_was_killed_goes_on_and_ends_in_the_same_bytes(source, tmp_path, monkeypatch):
    monkeypatch.setattr(compression, "CHUNK_BYTES", 9 * source.header.row_bytes)
    whole, broken = tmp_path / "whole.h5", tmp_path / "broken.h5"
    features.compress(source.path, whole, channels=5, progress=False)

    def killing(done, total):
        if done > 30:
            raise _KilledError

    with pytest.raises(_KilledError):
        compression.compress_store(source.path, broken, channels=5, on_progress=killing)
    left = FeatureStore(broken)
    assert not left.complete
    assert 0 < np.count_nonzero(left.done) < ROWS
    monkeypatch.setattr(compression, "principal_directions", None)  # the basis is the one that is there
    made = compression.compress_store(source.path, broken, channels=5)
    assert 0 < made.written < ROWS
    assert broken.read_bytes() == whole.read_bytes()
    again = compression.compress_store(source.path, broken, channels=5)
    assert again.written == 0
    assert broken.read_bytes() == whole.read_bytes()


def test_a_source_that_became_another_one_is_not_gone_on_with(tmp_path):
    header = build_header(rows=24, shape=(2, 2, 8))
    for seed, name in enumerate(("first.h5", "second.h5")):
        fill_store(tmp_path / name, header, build_features(header, seed=seed))
    features.compress(tmp_path / "first.h5", tmp_path / "out.h5", channels=3, progress=False)
    with pytest.raises(InputError, match="features: expected those of the source"):
        features.compress(tmp_path / "second.h5", tmp_path / "out.h5", channels=3, progress=False)


def test_an_open_store_stands_for_its_path(source, tmp_path, monkeypatch):
    monkeypatch.chdir(source.path.parent)
    opened = FeatureStore(source.path.name)
    monkeypatch.chdir(tmp_path)
    assert Path(opened).samefile(source.path)
    small = features.compress(opened, "small.h5", channels=4, progress=False)
    assert small.header.feature_shape[-1] == 4
    assert isinstance(features.convert(opened, "article.h5", progress=False), Path)


def test_too_few_patients_for_a_split_are_said(tmp_path):
    build_store(tmp_path / "few.h5", rows=6, shape=(2, 2, 8))
    said = succeed("features.compress", tmp_path / "few.h5", tmp_path / "out.h5", "--channels", 2)
    assert "6 usable rows, as they cannot be split into parts" in said.err


def test_the_command_says_what_it_did_and_info_shows_it(source, tmp_path):
    out = tmp_path / "small.h5"
    said = succeed("features.compress", source.path, out, "--channels", 5)
    assert "5 of 12 channels" in said.err
    assert "training rows of --folds 0; 60 rows written" in said.err
    assert "finished already" in succeed("features.compress", source.path, out, "--channels", 5).err
    assert "5 of 12 channels" in " ".join(succeed("features.info", out).out.split())
    told = succeed("features.info", out, "--json").out
    assert f'"compressed_from": "{source.fingerprint}"' in told
    assert "compressed_from" not in succeed("features.info", source.path, "--json", "--quick").out
    assert "compressed to 5 of 12 channels" in repr(FeatureStore(out))
    converted = succeed("features.convert", out, tmp_path / "article.h5")
    assert "the basis of its channels" in converted.err


@pytest.mark.parametrize("channels", [0, 13])
def test_more_channels_than_there_are_and_none_are_refused(source, tmp_path, channels):
    said = invoke("features.compress", source.path, tmp_path / "out.h5", "--channels", channels)
    assert (said.status, (tmp_path / "out.h5").exists()) == (2, False)
    assert "--channels" in said.err


def test_a_truth_value_is_no_number_of_channels(source, tmp_path):
    with pytest.raises(InputError, match="--channels: expected a number, found True"):
        features.compress(source.path, tmp_path / "out.h5", channels=True)
    assert not (tmp_path / "out.h5").exists()


def test_what_does_not_fit_is_refused_in_one_line(source, compressed, tmp_path):
    build_store(tmp_path / "other.h5", rows=24)
    (tmp_path / "text.h5").write_text("something else")
    fill_store(tmp_path / "unfinished.h5", build_header(rows=48), batches=1)
    before = compressed.path.read_bytes()
    refused = {
        "compressed already, to 5 of 12": (compressed.path, tmp_path / "new.h5", 3),
        "expected a finished store": (tmp_path / "unfinished.h5", tmp_path / "new.h5", 3),
        "another file than the source": (source.path, source.path, 3),
        "one that is not compressed": (source.path, tmp_path / "other.h5", 3),
        "a file that is no HDF5": (source.path, tmp_path / "text.h5", 3),
        "channels: expected 3, found 5": (source.path, compressed.path, 3),
        f"one of {source.fingerprint[:16]}": (tmp_path / "other.h5", compressed.path, 3),
    }
    for found, (store, out, channels) in refused.items():
        said = invoke("features.compress", store, out, "--channels", channels)
        assert (said.status, len(said.err.strip().splitlines())) == (2, 1), said.err
        assert found in said.err
    assert compressed.path.read_bytes() == before
    assert not (tmp_path / "new.h5").exists()


def test_values_too_large_for_the_dtype_are_refused(tmp_path):
    header = build_header(rows=48, shape=(2, 2, 8))
    large = np.full(header.shape, 6e4, np.float16)
    fill_store(tmp_path / "large.h5", header, large)
    with pytest.raises(InputError, match="the largest float16"):
        features.compress(tmp_path / "large.h5", tmp_path / "out.h5", channels=2, progress=False)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("damage", ["none", "skewed", "NaN", "too few", "another source"])
def test_a_damaged_basis_is_no_store(compressed, damage):
    with h5py.File(compressed.path, "r+") as file:
        basis = file["projection"][:]
        if damage in ("skewed", "NaN"):
            file["projection"][0, 0] = np.nan if damage == "NaN" else 5
        elif damage == "another source":
            file.attrs["compressed_from"] = "0" * 64
        else:
            del file["projection"]
        if damage == "too few":
            file["projection"] = basis[:, :4]
    if damage == "another source":
        assert any("compressed_from" in problem for problem in find_problems(FeatureStore(compressed.path)))
        return
    with pytest.raises(InputError, match="projection"):
        FeatureStore(compressed.path)


def test_stores_of_two_bases_are_not_joined(source, compressed, tmp_path):
    other = features.compress(source.path, tmp_path / "other.h5", channels=4, progress=False)
    assert JoinedStore(compressed, compressed).header.projection == compressed.header.projection
    with pytest.raises(AssertionError):
        JoinedStore(compressed, other)
