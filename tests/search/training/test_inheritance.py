"""What processes have left of their trials is found by who runs these again, and nothing else is taken for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from made_snapshots import OTHER, WIDE, asked, damage, leave_snapshot
from optuna.trial import TrialState, create_trial

from search.setup.file_names import SNAPSHOT_FILE
from search.training import inheritance as module
from search.training.inheritance import Inheritance
from search.trials.notes import TrialNotes

WORKERS = "workers"


@pytest.fixture
def workers(tmp_path) -> Path:
    return tmp_path / WORKERS


def study_of(*trials: dict[str, Any]) -> optuna.Study:
    """A study of trials with these notes; the last one is running, the others are gone."""
    study = optuna.create_study()
    for notes in trials:
        study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=TrialNotes.as_attributes(**notes)))
    return study


def rerun(*names: str | None) -> optuna.Study:
    """A trial that was begun by the first of these, and run again by each of the others in turn; and then once more."""
    trials: list[dict[str, Any]] = [{} if name is None else {"worker": name} for name in (*names, "me")]
    for number, notes in enumerate(trials[1:]):
        notes["rerun_of"] = number
    return study_of(*trials)


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [1, 3])
def test_what_a_process_has_left_of_a_trial_is_gone_on_with(workers, folds):
    leave_snapshot(workers / "one", {4: 2, 0: 3}, told=0.25, epoch=9, folds=folds)
    mine = asked(1)
    found = Inheritance(workers, rerun("one")).of(mine)
    assert found is not None
    assert (found.trial, found.bank_epoch) == (0, 9)
    assert found.banked.asked is mine
    assert (found.banked.epochs, found.banked.first_epoch, found.banked.rates) == (3, 2, [0.01] * 3)
    assert found.banked.best is not None
    assert (found.banked.best.epoch, found.banked.best.validation.accuracy) == (1, 0.75)
    assert [np.unique(state["weights/kernel"]) for state in found.states] == [0.25 + fold for fold in range(folds)]


def test_a_trial_that_runs_none_again_begins_anew(workers):
    leave_snapshot(workers / "one", {0: 3})
    assert Inheritance(workers, study_of({"worker": "one"})).of(asked(0)) is None


def test_of_a_chain_of_reruns_it_is_the_latest_that_came_as_far_as_a_snapshot(workers):
    leave_snapshot(workers / "first", {0: 3}, told=0.1)
    leave_snapshot(workers / "second", {1: 4}, told=0.2)
    leave_snapshot(workers / "third", {7: 1})  # of other trials
    found = Inheritance(workers, rerun("first", "second", "third", "fourth", None)).of(asked(5))
    assert found is not None
    assert (found.trial, found.banked.epochs) == (1, 4)
    (workers / "second" / SNAPSHOT_FILE).unlink()
    found = Inheritance(workers, rerun("first", "second", "third", "fourth", None)).of(asked(5))
    assert found is not None
    assert (found.trial, found.banked.epochs) == (0, 3)


def test_one_that_had_not_trained_an_epoch_is_passed_over(workers):
    leave_snapshot(workers / "first", {0: 3})
    leave_snapshot(workers / "second", {1: 0})
    found = Inheritance(workers, rerun("first", "second")).of(asked(2))
    assert found is not None
    assert found.trial == 0
    assert Inheritance(workers, rerun("second", "second")).of(asked(2)) is None


def test_where_nobody_has_left_anything_it_begins_anew_and_nothing_is_said(workers, capsys):
    assert Inheritance(workers, rerun("one", None)).of(asked(2)) is None
    (workers / "one").mkdir(parents=True)
    assert Inheritance(workers, rerun("one", None)).of(asked(2)) is None
    assert capsys.readouterr().err == ""


def test_it_is_known_when_a_trial_had_begun_that_runs_again():
    begun: dict[str, Any] = {"first_epoch": 3}
    killed_before_it_had_a_place: dict[str, Any] = {"rerun_of": 1}
    study = study_of({"first_epoch": 2}, begun | {"rerun_of": 0}, killed_before_it_had_a_place, {"rerun_of": 2}, {})
    found = [Inheritance(Path(), study).first_epoch(asked(number)) for number in range(5)]
    assert found == [None, 2, 3, 3, None]


# --- read once, and anew ----------------------------------------------------------------------------------------------


def test_a_snapshot_is_looked_through_once_until_it_is_written_anew(workers, monkeypatch):
    read = []
    real = module.read_snapshot

    def read_snapshot(folder, *, of):
        read.extend([folder.name] * (not of))
        return real(folder, of=of)

    monkeypatch.setattr(module, "read_snapshot", read_snapshot)
    path = leave_snapshot(workers / "one", {0: 3})
    inheritance = Inheritance(workers, rerun("one"))
    for _ in range(3):
        assert inheritance.of(asked(1)) is not None
    assert read == ["one"]
    written = path.stat().st_mtime_ns
    leave_snapshot(workers / "one", {0: 5}, epoch=11)
    os.utime(path, ns=(written + 1, written + 1))  # the least that a clock can tell
    found = inheritance.of(asked(1))
    assert found is not None
    assert (found.banked.epochs, found.bank_epoch) == (5, 11)
    assert read == ["one", "one"]
    path.unlink()
    assert inheritance.of(asked(1)) is None


def test_of_a_snapshot_only_the_heads_of_the_trial_are_read(workers, capsys):
    damage(leave_snapshot(workers / "one", {4: 2, 0: 3}, spec=WIDE), "0/0/weights/kernel")
    found = Inheritance(workers, rerun("one")).of(asked(1, spec=WIDE))
    assert found is not None
    assert found.banked.epochs == 3
    assert capsys.readouterr().err == ""
    damage(leave_snapshot(workers / "one", {4: 2, 0: 3}, spec=WIDE), "1/0/weights/kernel")
    assert Inheritance(workers, rerun("one")).of(asked(1, spec=WIDE)) is None
    assert "note: trial 1 begins anew: " in capsys.readouterr().err


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["..", ".", "", "../outside", "a/b", "one/", "/", "one\0", "\0", "x" * 5000, "one/../one"],
    ids=lambda name: repr(name[:12]),
)
def test_a_workers_name_that_is_a_path_leads_nowhere(tmp_path, workers, name, capsys):
    for place in (tmp_path, tmp_path / "outside", workers, workers / "a" / "b", workers / "one"):
        leave_snapshot(place, {0: 3})
    assert Inheritance(workers, rerun(name)).of(asked(1)) is None
    absolute = Inheritance(workers, rerun(str(tmp_path / "outside")))
    assert absolute.of(asked(1)) is None
    assert capsys.readouterr().err == ""
    assert Inheritance(workers, rerun("one")).of(asked(1)) is not None


@pytest.mark.parametrize("content", [b"", b"no archive", None], ids=["empty", "another", "cut"])
def test_of_a_damaged_snapshot_there_is_a_note_and_the_trial_begins_anew(workers, capsys, content):
    path = leave_snapshot(workers / "one", {0: 3})
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    inheritance = Inheritance(workers, rerun("one"))
    assert [inheritance.of(asked(1)) for _ in range(3)] == [None] * 3
    said = capsys.readouterr().err
    assert said.count(f"note: {path}: expected a snapshot, found a damaged file") == 1, "it is said once"


def test_behind_a_damaged_snapshot_that_of_the_forerunner_is_found(workers, capsys):
    leave_snapshot(workers / "first", {0: 3})
    leave_snapshot(workers / "second", {1: 4}).write_bytes(b"")
    found = Inheritance(workers, rerun("first", "second")).of(asked(2))
    assert found is not None
    assert found.trial == 0
    assert "damaged" in capsys.readouterr().err


def test_the_state_of_another_head_is_refused_and_that_is_said(workers, capsys):
    path = leave_snapshot(workers / "one", {0: 3}, spec=OTHER)
    assert Inheritance(workers, rerun("one")).of(asked(1)) is None
    said = capsys.readouterr().err
    assert f"note: trial 1 begins anew: {path}: expected a snapshot" in said
    assert "trial 1: expected the state of this head, found that of another" in said
    assert Inheritance(workers, rerun("one")).of(asked(1, spec=OTHER)) is not None


@pytest.mark.parametrize(
    ("part", "found"),
    [
        *(("weights/kernel", "a part"), ("plateau/rates", "a part"), ("first/kernel", "none of first")),
        *(("spec", "none of spec"), ("seed", "none of seed")),
    ],
)
def test_a_part_of_a_state_is_refused_and_that_is_said(workers, capsys, part, found):
    path = leave_snapshot(workers / "one", {0: 3})
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != f"0/0/{part}"}
        assert len(arrays) == len(file.files) - 1
    np.savez(path, **arrays)
    assert Inheritance(workers, rerun("one")).of(asked(1)) is None
    said = capsys.readouterr().err
    assert "note: trial 1 begins anew: " in said
    assert f"trial 1: expected the whole state of a head, found {found}" in said
