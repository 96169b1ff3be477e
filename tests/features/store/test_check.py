"""``features.info``: what it says of a store, and the damage that it finds."""

import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from commands import invoke, succeed
from conftest import CLASSES, build_features, build_header, build_store

from features.store import check
from features.store.check import describe, find_problems
from features.store.reader import FeatureStore
from features.store.schema import RowState
from features.store.writer import StoreWriter


@pytest.fixture
def path(tmp_path) -> Path:
    return build_store(tmp_path / "a.h5", rows=24, views=("identity", "flip"), skipped=[4, 7])


def damage(path: Path, name: str, place, value) -> FeatureStore:
    with h5py.File(path, "r+") as file:
        if place is None:
            file.attrs[name] = value
        else:
            file[name][place] = value
    return FeatureStore(path)


def test_it_describes_a_store_in_json_types(path):
    store = FeatureStore(path)
    told = json.loads(json.dumps(describe(store)))
    assert told | {"created": "", "versions": {}} == {
        "schema": 1,
        "rows": 24,
        "done": 22,
        "skipped": 2,
        "pending": 0,
        "complete": True,
        "classes": dict.fromkeys(CLASSES, 6),
        "patients": {"rows_known": 24, "number": 8, "in_several_classes": 0},
        "views": ["identity", "flip"],
        "backbone": "mobilenet",
        "alpha": 0.25,
        "weights": "random:0",
        "weights_sha256": "ab" * 32,
        "image_size": 64,
        "preprocessing": "backbone",
        "intensity": "unknown",
        "resize": "squash",
        "pages": "first",
        "shape": [24, 2, 2, 2, 8],
        "dtype": "float16",
        "batch_size": 16,
        "bytes": path.stat().st_size,
        "fingerprint": store.header.fingerprint,
        "content": None,
        "created": "",
        "versions": {},
    }


def test_patients_of_several_classes_and_unknown_ones_are_counted(tmp_path):
    header = build_header(rows=8)
    header = replace(header, labels=(0, 1, 0, 0, 2, 2, 3, 3), patients=("a", "a", "a", "b", "c", "c", "", ""))
    StoreWriter(tmp_path / "a.h5", header).close()
    told = describe(FeatureStore(tmp_path / "a.h5"))
    assert told["patients"] == {"rows_known": 6, "number": 3, "in_several_classes": 1}
    assert told["classes"] == {"CNV": 3, "DME": 1, "DRUSEN": 2, "NORMAL": 2}
    assert (told["done"], told["pending"], told["complete"]) == (0, 8, False)


def test_sound_stores_have_no_problem_finished_or_not(path, tmp_path):
    assert find_problems(FeatureStore(path)) == []
    header = build_header(rows=20, batch_size=8)
    with StoreWriter(tmp_path / "b.h5", header) as writer:
        batch = next(iter(writer.pending()))
        writer.write(batch, build_features(header)[:8], np.ones(8, np.uint8))
        assert find_problems(FeatureStore(writer.path)) == []


@pytest.mark.parametrize(
    ("name", "place", "value", "problem"),
    [
        ("features", (3, 1, 0, 1, 2), np.nan, "finite values in every row that is done, found others in row 3"),
        ("features", (23, 0, 0, 0, 0), np.inf, "finite values in every row that is done, found others in row 23"),
        ("features", (9, 1), 0, "every row that is done to hold features in every view, found zeros only in row 9"),
        ("features", slice(12, 24), 0, "zeros only in rows 12, 13, 14, 15, 16, 17, 18, 19, 20, 21 and 2 more"),
        ("features", (7, 0, 0, 0, 0), 1, "zeros in every row that was skipped, found others in row 7"),
        ("done", 2, RowState.PENDING, "complete: expected every row done or skipped, found 1 pending"),
        ("done", 2, 9, "done: expected 0, 1 or 2, found 9 in row 2"),
        ("labels", 2, 3, "fingerprint: expected [0-9a-f]{64} from the contents, found [0-9a-f]{64}"),
        ("sizes", 2, 3, "fingerprint: "),
        ("weights_sha256", None, "00", "fingerprint: "),
        ("fingerprint", None, "00", "fingerprint: expected [0-9a-f]{64} from the contents, found 00"),
        ("paths", 1, "CNV/CNV-1000-1.png", "paths: expected every file once, found CNV/CNV-1000-1.png 2 times"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [1, 1000, check.CHUNK_BYTES])
def test_damage_is_found_wherever_chunks_begin(path, monkeypatch, name, place, value, problem, chunk_bytes):
    monkeypatch.setattr(check, "CHUNK_BYTES", chunk_bytes)
    problems = find_problems(damage(path, name, place, value))
    assert any(re.search(problem, line) for line in problems), problems


def test_quick_reads_no_features_and_progress_counts_every_row_once(path, monkeypatch):
    monkeypatch.setattr(check, "CHUNK_BYTES", 700)
    store = damage(path, "features", 0, np.nan)
    assert find_problems(store, features=False) == []
    told = []
    assert len(find_problems(store, on_progress=lambda *how_far: told.append(how_far))) == 1
    assert told[0] == (0, 24)
    assert told[-1] == (24, 24)
    assert len(set(told)) == len(told) > 2


def test_names_reach_no_terminal_raw(tmp_path):
    path = build_store(tmp_path / "named.h5", rows=24, classes=("a\n\x1b[31mb", "plain"))
    assert "a\\n\\x1b[31mb 12, plain 12" in succeed("features.info", path, "--quick").out


def test_the_command_shows_a_table_or_json_and_fails_on_damage(path):
    table = succeed("features.info", path).out
    assert table.count("\n") > 10
    assert "24: 22 done, 2 skipped, 0 pending" in table
    damage(path, "features", 0, np.nan)
    status, out, err = invoke("features.info", path, "--json")
    assert status == 1
    told = json.loads(out)
    assert told["problems"] == ["features: expected finite values in every row that is done, found others in row 0"]
    assert err.splitlines()[-1] == f"error: {path}: 1 problem found"
    quick = succeed("features.info", path, "--json", "--quick")
    assert json.loads(quick.out)["problems"] == []
