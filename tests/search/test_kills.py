"""A process that is killed where a study's state changes hands: what goes on ends as if nothing had been.

A kill leaves what is on the disk, no more and no less. So one run is enough to die in every place: at each stage, and
after each snapshot, the study directory is copied as it lies there, and later each copy goes on by ``--resume``. The
banks are made ones (``made_bank``): they know which bank a head was in, and cost nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
from killed_study import Ended, found_in, made_searches, search

from features.runtime.files import being_written
from search.record.head_files import FINALISTS
from search.setup.file_names import SNAPSHOT_FILE
from search.training.stages import Stage

MODES: dict[str, dict[str, Any]] = {
    "holdout": {},
    "folds": {"folds": "auto"},
    "stores": {"stores": 3, "trials": 12},
    "stores and folds": {"stores": 2, "folds": 2, "epochs": 5},
    "solo": {"engine": "solo", "finalists": None, "repeats": None},
    "seldom saved": {"snapshot_every": 1e9},
    "one value": {"finalists": 0},
    "database": {"storage": "sqlite:///{folder}/heads.db", "trials": 4, "epochs": 3, "finalists": 2},
}


@pytest.fixture(scope="module", params=MODES)
def ended(request, tmp_path_factory) -> Ended:
    with made_searches():
        yield search(tmp_path_factory.mktemp(request.param.replace(" ", "-")), **MODES[request.param])


def test_a_study_is_copied_wherever_its_state_changes_hands(ended):
    stages = {name.rpartition(" ")[0] for name in ended.copies}
    assert stages >= {"search", "snapshot", "calibration", "test", "summary", "report", "end"}
    if ended.found["summary"]["finalists"]:
        assert stages >= {Stage.REPEATS, Stage.REFIT}
    if len(ended.found.get("repeats", ())) > 6:
        assert sum(name.startswith(Stage.SMALLER_BANK) for name in ended.copies) >= 1


@pytest.mark.parametrize("ended", ["solo"], indirect=True)
def test_finalists_that_were_left_open_are_told(ended):
    plan = ended.found["summary"]["finalists"]["plan"]
    assert (plan["chosen"], plan["heads"], plan["runs"]) == (True, 2, 2)
    assert len(ended.found["repeats"]) == 4


@pytest.mark.parametrize("ended", ["holdout"], indirect=True)
@pytest.mark.parametrize("among", ["trials", "repeats"])
def test_a_snapshot_that_a_killed_search_was_writing_goes_though_no_other_is_written(ended, among):
    name = [name for name in ended.copies if name.startswith("snapshot")][3 if among == "trials" else -3]
    place = ended.copies[name] / (FINALISTS if among == "repeats" else "")
    assert (place / SNAPSHOT_FILE).is_file()
    being_written(place / SNAPSHOT_FILE).write_bytes(b"torn")
    ended.go_on(name, snapshot_every=1e9)
    assert not [path.name for path in ended.folder.rglob("*") if "snapshot" in path.name]


@pytest.mark.slow
def test_killed_at_any_stage_a_study_ends_as_if_it_had_not_been(ended):
    for name in ended.copies:
        if not name.startswith("snapshot"):
            ended.go_on(name)
            assert found_in(ended.folder) == ended.found, name


@pytest.mark.slow
def test_killed_after_a_snapshot_a_study_ends_as_if_it_had_not_been(ended):
    for name in [name for name in ended.copies if name.startswith("snapshot")][1::4]:
        ended.go_on(name)
        assert found_in(ended.folder) == ended.found, name
