"""What a store keeps of its source files: hashes and times, and names in one spelling."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import build_features, build_header, build_store, fill_store

from features.runtime.errors import InputError
from features.store.check import describe, find_problems
from features.store.joined import JoinedStore
from features.store.reader import FeatureStore
from features.store.schema import DIGEST_BYTES, StoreHeader
from features.store.writer import StoreWriter

ROWS = 12


def hashed(path: Path, *, seed: int = 0, header: StoreHeader | None = None) -> Path:
    """A store with hashes of its source files."""
    header = replace(header or build_header(rows=ROWS), modified=tuple(range(1, ROWS + 1)))
    contents = np.random.default_rng(seed).integers(1, 255, (ROWS, DIGEST_BYTES), np.uint8)
    features, states = build_features(header), np.ones(ROWS, np.uint8)
    with StoreWriter(path, header) as writer:
        for rows in ([*range(0, ROWS, 2)], [*range(1, ROWS, 2)][::-1]):  # in any order
            writer.write(rows, features[rows], states[rows], contents[rows])
        writer.finish()
    assert np.array_equal(np.asarray(FeatureStore(path).contents), contents)
    return path


def test_rows_may_be_written_in_any_order(tmp_path):
    store = FeatureStore(hashed(tmp_path / "a.h5"))
    assert np.array_equal(store.features, build_features(store.header))
    assert store.header.modified == tuple(range(1, ROWS + 1))
    assert not find_problems(store)


def test_content_stands_for_the_hashes_and_is_known_at_the_end(tmp_path):
    one, same, other = (FeatureStore(hashed(tmp_path / f"{n}.h5", seed=seed)) for n, seed in enumerate((0, 0, 1)))
    assert len({store.fingerprint for store in (one, same, other)}) == 1
    assert one.content == same.content != other.content
    assert describe(one)["content"] == one.content
    assert one.identity == {"fingerprint": one.fingerprint, "content": one.content}
    plain = FeatureStore(build_store(tmp_path / "plain.h5", rows=ROWS))
    assert (plain.content, describe(plain)["content"]) == ("", None)
    assert plain.identity == {"fingerprint": plain.fingerprint}
    header = replace(build_header(rows=ROWS), modified=(1,) * ROWS)
    fill_store(tmp_path / "unfinished.h5", header, batches=0)
    assert FeatureStore(tmp_path / "unfinished.h5").content == ""


def test_a_source_is_known_again_by_what_both_sides_know(tmp_path):
    one, other = (FeatureStore(hashed(tmp_path / f"{seed}.h5", seed=seed)) for seed in (0, 1))
    one.check_recorded(one.identity, "x")
    one.check_recorded({"fingerprint": one.fingerprint}, "an earlier version knew")
    with pytest.raises(
        InputError, match=r"content: expected .{16}, of the store that x, found .*; images have changed"
    ):
        other.check_recorded(one.identity, "x")
    with pytest.raises(InputError, match="fingerprint: expected"):
        other.check_recorded({"fingerprint": "00"}, "x")


def test_what_is_joined_has_the_times_of_both_or_none(tmp_path):
    one = FeatureStore(hashed(tmp_path / "a.h5"))
    plain = FeatureStore(build_store(tmp_path / "plain.h5", rows=ROWS))
    assert len(JoinedStore(one, one).header.modified) == 2 * ROWS
    assert JoinedStore(one, plain).header.modified == ()
    assert JoinedStore(one, one).content == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("contents", np.zeros((ROWS, 15), np.uint8)),
        ("contents", np.zeros((ROWS - 1, 16), np.uint8)),
        ("contents", np.zeros((ROWS, 16), np.int8)),
        ("modified", np.zeros(ROWS - 1, np.int64)),
        ("modified", np.zeros(ROWS, np.float64)),
    ],
)
def test_damaged_hashes_and_times_are_refused_by_name(tmp_path, name, value):
    path = hashed(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    with pytest.raises(InputError, match=f"{name}: expected"):
        FeatureStore(path)


def test_a_row_that_is_done_without_a_hash_is_a_problem(tmp_path):
    header = replace(build_header(rows=ROWS), modified=(1,) * ROWS)
    fill_store(tmp_path / "a.h5", header)
    assert any(problem.startswith("contents: ") for problem in find_problems(FeatureStore(tmp_path / "a.h5")))


def decomposed(header: StoreHeader) -> StoreHeader:
    names = {
        name: tuple(unicodedata.normalize("NFD", n) for n in getattr(header, name)) for name in ("classes", "patients")
    }
    return replace(header, **names)


def test_a_store_whose_names_are_spelled_otherwise_is_read_and_gone_on_with_in_one_spelling(tmp_path):
    composed = build_header(rows=ROWS, classes=("Mélanome", "Névus"))
    composed = replace(composed, patients=tuple(f"Zoë{patient}" for patient in composed.patients))
    old = decomposed(composed)
    path = hashed(tmp_path / "old.h5", header=old)
    store = FeatureStore(path)
    assert (store.classes, store.header.patients) == (composed.classes, composed.patients)
    assert store.fingerprint == old.fingerprint
    assert not find_problems(store)
    with StoreWriter(path, composed) as writer:
        assert writer.complete
    twice = replace(old, classes=(old.classes[0], composed.classes[0]))
    assert FeatureStore(hashed(tmp_path / "twice.h5", header=twice)).classes == twice.classes
