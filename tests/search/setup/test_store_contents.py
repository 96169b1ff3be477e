"""A study knows its stores again by their contents too, where these were known when it was made."""

from __future__ import annotations

from typing import Any

import pytest
from made_study import make_config

from features.runtime.errors import InputError
from search.setup.audit import audit_study
from search.setup.config import StudyConfig
from search.setup.data import load_data


def config_of(**store: str) -> StudyConfig:
    stores: dict[str, Any] = {"features": {"path": "s.h5", "fingerprint": "ab", **store}}
    return make_config(stores=stores | {"validation": None, "test": None})


def test_another_content_is_refused_and_an_unknown_one_is_not(tmp_path):
    known, other, unknown = config_of(content="11"), config_of(content="22"), config_of()
    for one, given in ((known, known), (known, unknown), (unknown, known), (unknown, unknown)):
        one.check_resumable(tmp_path / "study.json", given)
    with pytest.raises(InputError, match=r"stores\.features\.content: expected 11, found 22"):
        known.check_resumable(tmp_path / "study.json", other)


def test_an_audit_is_made_anew_where_the_content_is_another(tmp_path, make_store, monkeypatch):
    path = make_store(tmp_path / "s.h5", rows=96)
    seen = []
    for content in ("", "11", "22", "22"):
        monkeypatch.setattr("features.store.reader.FeatureStore.content", content)
        data = load_data(path, validation=None, test=None, validation_share=0.2, test_share=0.2, seed=0)
        seen.append(audit_study(tmp_path, data)["identity"])
    assert seen[2] == seen[3]
    assert len(set(seen)) == 3
