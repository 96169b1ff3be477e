"""A study knows its stores again by their contents too, where these were known when it was made."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from conftest import build_store
from killed_study import STUDY, made_searches
from made_data import made_data
from made_study import make_config

from features.runtime.errors import InputError
from search import run_study
from search.setup.audit import audit_study
from search.setup.config import StudyConfig
from search.training.snapshot import Snapshots

PARTS = ("features", "validation", "test")


def config_of(**store: str) -> StudyConfig:
    stores: dict[str, Any] = {"features": {"path": "s.h5", "fingerprint": "ab", **store}}
    return make_config(stores=stores | {"validation": None, "test": None})


def test_another_content_is_refused_and_an_unknown_one_is_not(tmp_path):
    known, other, unknown = config_of(content="11"), config_of(content="22"), config_of()
    for one, given in ((known, known), (known, unknown), (unknown, known), (unknown, unknown)):
        one.check_resumable(tmp_path / "study.json", given)
    with pytest.raises(InputError, match=r"stores\.features\.content: expected 11, found 22"):
        known.check_resumable(tmp_path / "study.json", other)


def test_what_a_study_is_made_of_is_noted_by_names_and_its_stores_as_they_were_told():
    known = {"path": "s.h5", "fingerprint": "ab", "content": "11"}
    more = {"b.fingerprint": {"features": known, "validation": known, "test": None}}
    config = make_config(stores={"features": known}, store_name="a", more_stores=more, space={"x.fingerprint": [1, 2]})
    told = config.to_dict()
    assert json.dumps(told["stores"]) == json.dumps({"features": known, "validation": None, "test": None})
    assert json.dumps(told["more_stores"]) == json.dumps(more)
    unknown = {"path": "s.h5", "fingerprint": "ab"}
    assert json.dumps(config_of().to_dict()["stores"]["features"]) == json.dumps(unknown)
    other = {f"stores.b.fingerprint.{part}.fingerprint": of for part, of in zip(PARTS, ("ab", "ab", None), strict=True)}
    first = {f"stores.{part}.fingerprint": of for part, of in zip(PARTS, ("ab", None, None), strict=True)}
    expected = {"seed": 3, **first, **other, "split.identity": "cd" * 8}
    assert json.dumps(config.made_of) == json.dumps(expected)


def test_an_audit_is_made_anew_where_the_content_is_another(tmp_path, make_store, monkeypatch):
    path = make_store(tmp_path / "s.h5", rows=96)
    seen = []
    for content in ("", "11", "22", "22"):
        monkeypatch.setattr("features.store.reader.FeatureStore.content", content)
        data = made_data(path)
        seen.append(audit_study(tmp_path, data).identity)
    assert seen[2] == seen[3]
    assert len(set(seen)) == 3


@pytest.mark.parametrize("when", ["search", "snapshot", "repeats", "refit", "calibration", "test", "one at a time"])
def test_a_store_that_is_written_over_ends_its_search(tmp_path, monkeypatch, when):
    path, other = build_store(tmp_path / "a.h5", rows=96), build_store(tmp_path / "b.h5", rows=96, seed=1)
    (tmp_path / "study.toml").write_text(STUDY)
    at, real, saved = "search" if when == "one at a time" else when, Snapshots.save, []

    def write(stage: str) -> None:
        if stage == at:
            shutil.copyfile(other, path)

    def saving(snapshots: Snapshots, snapshot: Any) -> None:
        real(snapshots, snapshot)
        saved.append(snapshot.finished)
        if len(saved) == 2:
            write("snapshot")

    options = {"study": tmp_path / "study.toml", "out": tmp_path / "study", "trials": 4, "folds": 0}
    options |= {"engine": "solo"} if when == "one at a time" else {"finalists": 2, "repeats": 2, "snapshot_every": 0}
    with made_searches():
        monkeypatch.setattr(Snapshots, "save", saving)
        with pytest.raises(InputError, match=r"a\.h5: expected a store that stays, found one that was written to"):
            run_study(path, **options, progress=False, on_stage=write)
    assert not (tmp_path / "study" / "summary.json").exists()
    assert when != "snapshot" or saved == [0, 0]  # nothing was told of what the other rows gave
