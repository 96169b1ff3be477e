"""Near-identical images: planted copies are found, images of one class are not, in any order and in bounded memory."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import build_header, fill_store
from hypothesis import given, settings
from hypothesis import strategies as st

from features.leaks import duplicates, similarity
from features.leaks.duplicates import NearIdentical, find_near_identical
from features.leaks.similarity import SKETCH, Images, Similarity, unit
from features.store.reader import FeatureStore

SHAPE = (4, 4, 64)


def draw_images(number: int, *, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """(number, h, w, c) features, four classes in turn: what the images of a class share outweighs what they do not."""
    generator = np.random.default_rng(seed)
    classes = generator.normal(0, 1.5, (4, *shape))
    return (classes[np.arange(number) % 4] + generator.normal(0, 1, (number, *shape))).astype(np.float32)


def blurred(images: np.ndarray, share: float, seed: int = 9) -> np.ndarray:
    """The images with noise of ``share`` of what tells them apart."""
    return images + np.random.default_rng(seed).normal(0, share, images.shape).astype(np.float32)


def write_store(
    path: Path, images: np.ndarray, *, names: Sequence[str] = (), views: Sequence[str] = ("identity",)
) -> FeatureStore:
    """A finished store of (rows, views, h, w, c) or (rows, h, w, c) features."""
    features = images if images.ndim == 5 else images[:, None]
    rows = len(images)
    header = build_header(rows=rows, views=views, shape=features.shape[2:], dtype="float32", batch_size=rows)
    header = replace(header, paths=tuple(names) or tuple(f"CNV/CNV-{row}-1.png" for row in range(rows)))
    return FeatureStore(fill_store(path, header, features.astype(np.float32)))


def find(store: FeatureStore) -> NearIdentical:
    """Every image is of a patient of its own."""
    return find_near_identical(Images([(store, store.usable)]), np.arange(len(store)))


def rows_of(found: NearIdentical) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in found.pairs}


def test_copies_are_found_and_images_of_one_class_are_not(tmp_path):
    images = draw_images(200)
    raw = unit(images.reshape(200, -1))
    assert np.median((raw @ raw.T)[0::4, 4::4]) > 0.6  # by their bottlenecks as they are, a class is all alike
    images[150] = images[0]
    images[151] = blurred(images[1], 0.3)
    images[152] = images[2, :, ::-1]
    images[153] = blurred(images[3, :, ::-1], 0.3)
    found = find(write_store(tmp_path / "a.h5", images))
    assert rows_of(found) == {(0, 150), (1, 151), (2, 152), (3, 153)}
    by_row = {pair.first: pair for pair in found.pairs}
    assert [by_row[row].mirrored for row in range(4)] == [False, False, True, True]
    assert by_row[0].similarity == by_row[2].similarity == 1
    assert 0.9 < by_row[1].similarity < 1
    similarities = [pair.similarity for pair in found.pairs]
    assert similarities == sorted(similarities, reverse=True)
    assert not found.truncated


def test_a_group_may_hold_copies(tmp_path):
    images = draw_images(80)
    images[10], images[30] = images[0], images[0]
    store = write_store(tmp_path / "a.h5", images)
    groups = np.arange(80)
    groups[10] = 0
    found = find_near_identical(Images([(store, store.usable)]), groups)
    assert rows_of(found) == {(0, 30), (10, 30)}


def test_the_flip_view_finds_mirrored_copies_that_the_map_does_not(tmp_path):
    straight, flipped = draw_images(100), draw_images(100, seed=1)  # as unlike as with random weights
    straight[60], flipped[60] = flipped[7], straight[7]
    both = np.stack([flipped, straight], 1)
    assert rows_of(find(write_store(tmp_path / "a.h5", both, views=("flip", "identity")))) == {(7, 60)}
    assert rows_of(find(write_store(tmp_path / "b.h5", straight))) == set()


def test_one_store_with_the_flip_view_is_enough(tmp_path):
    straight, flipped = draw_images(120), draw_images(60, seed=1)
    straight[70] = flipped[7]
    with_views = write_store(tmp_path / "a.h5", np.stack([straight[:60], flipped], 1), views=("identity", "flip"))
    without = write_store(tmp_path / "b.h5", straight[60:])
    for parts in ([with_views, without], [without, with_views]):
        found = find_near_identical(Images([(part, part.usable) for part in parts]), np.arange(120))
        assert rows_of(found) == {(7, 70) if parts[0] is with_views else (10, 67)}


def test_an_image_that_is_there_forty_times_is_no_common_direction(tmp_path):
    images = draw_images(200)
    images[:40] = blurred(np.repeat(images[:1], 40, 0), 0.4)
    found = find(write_store(tmp_path / "a.h5", images))
    assert rows_of(found) == set(combinations(range(40), 2))


def test_similarity_is_that_of_the_full_bottlenecks(tmp_path):
    """Against the definition in float64: mean and directions by an exact decomposition."""
    images = draw_images(160)
    images[100:104] = blurred(images[:4], 0.5)
    found = find(write_store(tmp_path / "a.h5", images))
    kept = np.delete(images.reshape(160, -1).astype(np.float64), range(100, 104), 0)
    _, _, directions = np.linalg.svd(kept - kept.mean(0), full_matrices=False)
    directions = directions[: 160 // 16]
    rest = images.reshape(160, -1) - kept.mean(0)
    rest -= rest @ directions.T @ directions
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    assert rows_of(found) == {(row, 100 + row) for row in range(4)}
    for pair in found.pairs:
        assert pair.similarity == pytest.approx(float(rest[pair.first] @ rest[pair.second]), abs=0.02)


def test_the_full_bottlenecks_decide_near_the_threshold(tmp_path):
    """Sketches are off by some hundredths: they may neither lose a pair nor make one."""
    images = draw_images(240)
    noise = np.random.default_rng(1).normal(0, 1, (60, *SHAPE))
    images[180:] = images[:60] + np.linspace(1.4, 2.4, 60)[:, None, None, None] * noise
    store = write_store(tmp_path / "a.h5", images)
    found = find(store)
    listed = Images([(store, store.usable)])
    remainders, _ = Similarity.fit(listed, *listed.sketch()).remainders(np.arange(240))
    exact = np.sum(remainders[:60] * remainders[180:], axis=1)
    assert rows_of(found) == {(row, row + 180) for row in np.flatnonzero(exact.round(4) >= found.threshold)}
    assert np.sum(abs(exact - found.threshold) < 0.05) > 5
    assert 10 < len(found.pairs) < 50


def test_sketches_are_as_alike_as_what_they_stand_for(tmp_path):
    images = draw_images(200, shape=(3, 5, 100))
    images[100:] = blurred(images[:100], 0.7)
    listed = Images([(store := write_store(tmp_path / "a.h5", images), store.usable)])
    for sketches, which in zip(listed.sketch(), (0, 1), strict=True):
        measure = Similarity.fit(listed, *listed.sketch())
        measure.strip(sketches)
        exact = measure.remainders(np.arange(200))[which]
        error = (sketches @ sketches.T - exact @ exact.T)[np.triu_indices(200, 1)]
        assert abs(error.mean()) < 0.02
        assert error.std() < 1.3 / np.sqrt(SKETCH)


@pytest.mark.parametrize("shape", [(1, 1, 96), (1, 1, SKETCH), (2, 3, 16)])
def test_of_few_values_sketches_are_no_wider_and_exact(tmp_path, shape):
    """Vectors of 64 values were multiplied as 521, most of them zeros."""
    images = draw_images(200, shape=shape)
    listed = Images([(store := write_store(tmp_path / "a.h5", images), store.usable)])
    measure = Similarity.fit(listed, *listed.sketch())
    for which in (0, 1):
        sketches = listed.sketch()[which]
        assert sketches.shape == (200, np.prod(shape))
        measure.strip(sketches)
        exact = measure.remainders(np.arange(200))[which]
        np.testing.assert_allclose(sketches @ sketches.T, exact @ exact.T, atol=1e-5)


def test_the_threshold_follows_from_how_much_there_is_to_tell_images_apart_by(tmp_path):
    few = find(write_store(tmp_path / "few.h5", draw_images(200, shape=(2, 2, 8))))
    many = find(write_store(tmp_path / "many.h5", draw_images(200, shape=(4, 4, 256))))
    assert few.threshold > 0.95
    assert many.threshold < 0.5
    assert not few.pairs
    assert not many.pairs


@pytest.fixture(scope="module")
def with_copies(tmp_path_factory) -> FeatureStore:
    """100 images; of the first six there is a copy, more or less blurred, some mirrored."""
    images = draw_images(100)
    for row in range(6):
        images[80 + row] = blurred(images[row, :, :: (-1) ** row], 0.1 * row)
    return write_store(tmp_path_factory.mktemp("copies") / "a.h5", images)


@given(
    order=st.permutations(range(100)),
    cut=st.integers(0, 100),
    sample=st.sampled_from([80, 1024]),
    block=st.sampled_from([7, 2048]),
    chunk=st.sampled_from([3000, 2**21]),
)
@settings(max_examples=8)
def test_the_order_of_images_decides_nothing_nor_do_blocks(with_copies, order, cut, sample, block, chunk):
    rows = np.asarray(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "SAMPLE", sample)
        expected = named(Images([(with_copies, with_copies.usable)]), np.arange(100))
        patch.setattr(duplicates, "BLOCK", block)
        patch.setattr(similarity, "CHUNK_VALUES", chunk)
        found = named(Images([(with_copies, rows[:cut]), (with_copies, rows[cut:])]), rows[::-1])
    assert len(expected) == 6
    assert found.keys() == expected.keys()
    assert all(found[pair] == pytest.approx(expected[pair], abs=2e-4) for pair in found)


def named(images: Images, groups: np.ndarray) -> dict[frozenset[str], float]:
    found = find_near_identical(images, groups)
    return {frozenset((images.paths[pair.first], images.paths[pair.second])): pair.similarity for pair in found.pairs}


def test_memory_is_that_of_the_sketches_whatever_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(similarity, "CHUNK_VALUES", 2**17)
    store = write_store(tmp_path / "a.h5", draw_images(400, shape=(8, 8, 256)))
    tracemalloc.start()
    found = find(store)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.threshold < 0.6
    # Of 26 MB: the sketches, 2 MB, the workers' chunks, and, counted from NumPy 2.5 on, 7 MB in which eigh works.
    assert peak < store.features.nbytes * 2 / 3


@pytest.mark.parametrize("shape", [(1, 1, 600), (5, 1, 120)])
def test_what_a_mirror_does_not_change_is_compared_once(tmp_path, monkeypatch, shape):
    images = draw_images(200, shape=shape)
    images[100:120] = blurred(images[:20], 0.5)
    store = write_store(tmp_path / "a.h5", images)
    found, (straight, mirrored) = find(store), Images([(store, store.usable)]).sketch()
    assert straight is mirrored
    assert len(found.pairs) > 10
    monkeypatch.setattr(Images, "are_symmetric", False)
    assert find(store) == found
    with_views = write_store(tmp_path / "b.h5", images[:2, None].repeat(2, 1), views=("identity", "flip"))
    monkeypatch.undo()
    assert not Images([(store, store.usable), (with_views, with_views.usable)]).are_symmetric


def test_of_too_many_pairs_the_most_alike_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "LIMIT", 5)
    monkeypatch.setattr(duplicates, "BLOCK", 16)
    images = draw_images(120)
    for row in range(8):
        images[60 + row] = blurred(images[row], 0.05 * row)
    found = find(write_store(tmp_path / "a.h5", images))
    assert found.truncated
    assert rows_of(found) == {(row, 60 + row) for row in range(5)}


def test_damaged_rows_are_like_no_other_and_disturb_none(tmp_path):
    images = draw_images(80)
    images[40] = images[0]
    images[5, 1, 2, 3], images[6], images[7, 0, 0, :2] = np.nan, np.inf, (np.inf, -np.inf)
    store = write_store(tmp_path / "a.h5", images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows_of(find(store)) == {(0, 40)}


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e20, 1e36])
def test_the_scale_of_features_decides_nothing(tmp_path, scale):
    images = draw_images(80)
    images[40] = images[0]
    images[41] = blurred(images[1], 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find(write_store(tmp_path / "a.h5", images * np.float32(scale)))
    assert rows_of(found) == {(0, 40), (1, 41)}
    assert found.threshold == pytest.approx(find(write_store(tmp_path / "b.h5", images)).threshold, abs=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_images_are_no_trouble(tmp_path, rows):
    assert rows_of(find(write_store(tmp_path / "a.h5", draw_images(rows)))) == set()


def test_progress_counts_every_image_once(tmp_path):
    store = write_store(tmp_path / "a.h5", draw_images(30))
    told: list[tuple[int, int]] = []
    find_near_identical(
        Images([(store, store.usable)]), np.arange(30), on_progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (30, 30)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
