"""Heads on the disk: those of the best few trials and of the article's head, and no others."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import build_store
from ended_study import SPACE, drawn_weights
from made_data import made_data
from made_study import MadeStudy, make_config

from features.runtime.errors import InputError
from heads.files.head_file import read_head, save_head
from heads.metrics.scoring import EpochRecord, Score
from search.finish.checkpoints import TopCheckpoints
from search.record.head_files import (
    FINALISTS,
    HEADS_FOLDER,
    find_head,
    head_files,
    kept_numbers,
    path_of,
    unfinished_files,
)
from search.trials.ask_tell import Asked
from search.trials.ranking import ranking


@pytest.fixture
def study(tmp_path):
    store = build_store(tmp_path / "store.h5", rows=96)
    data = made_data(store, share=0.25, seed=1, resident=False)
    stores = {"features": {"path": f"{store}", "fingerprint": data.store.fingerprint}, "validation": None, "test": None}
    config = make_config(space=SPACE, split=data.split, stores=stores)
    made = MadeStudy(tmp_path / "study", config)
    yield made, TopCheckpoints(made.searched(data), keep=2), data
    made.close()


def end_trial(study, accuracy: float, *, folds: int = 1, asked: Asked | None = None) -> int:
    """Runs a trial to its end, its head offered and told as the pool does."""
    made, checkpoints, data = study
    asked = asked or made.book.ask()
    score = Score(1 - accuracy, accuracy, accuracy)
    weights = drawn_weights(asked.spec, data, seed=asked.number)
    checkpoints.offer(asked, [weights] * folds, score, ())
    asked.trial.report(accuracy, 1)
    made.book.complete(asked, EpochRecord(1, 0.1, score, 1e-3), epochs=1, parameters=1)
    return asked.number


def test_the_best_two_and_the_articles_head_are_kept_and_the_surpassed_go(study):
    made, checkpoints, _ = study
    for accuracy in (0.3, 0.5, 0.6):
        end_trial(study, accuracy)
    checkpoints.write_out()
    assert kept_numbers(made.folder) == [0, 1, 2]
    end_trial(study, 0.4)
    checkpoints.write_out()
    assert kept_numbers(made.folder) == [0, 1, 2]
    end_trial(study, 0.9)
    checkpoints.write_out()
    assert kept_numbers(made.folder) == [0, 2, 4]


def test_one_that_is_surpassed_before_it_is_written_is_never_written(study, monkeypatch):
    made, checkpoints, _ = study
    written = []
    save = checkpoints.save
    monkeypatch.setattr(
        checkpoints, "save", lambda number, *rest, **more: (written.append(number), save(number, *rest, **more))
    )
    for accuracy in (0.3, 0.5, 0.6, 0.7):
        end_trial(study, accuracy)
    checkpoints.write_out()
    assert written == [0, 2, 3]
    assert kept_numbers(made.folder) == [0, 2, 3]


def test_of_equals_the_first_is_kept_also_where_it_ends_last(study):
    made, checkpoints, _ = study
    end_trial(study, 0.3)
    slow = made.book.ask()
    for _ in range(2):
        end_trial(study, 0.5)
    checkpoints.write_out()
    end_trial(study, 0.5, asked=slow)
    checkpoints.write_out()
    assert (
        kept_numbers(made.folder) == [0, 1, 2] == sorted({0, *(one.number for one in ranking(made.opened.study)[:2])})
    )


def test_where_several_work_heads_go_once_their_trials_are_told_and_no_others_are_looked_for(study, monkeypatch):
    made, _, data = study
    checkpoints = TopCheckpoints(made.searched(data), keep=2, alone=False)
    study = made, checkpoints, data
    for accuracy in (0.3, 0.5, 0.6):
        end_trial(study, accuracy)
    under_way = made.book.ask().number
    for number in (under_way, 30):  # of other processes; of the second's trial nothing has been heard here
        path_of(made.folder, number).write_bytes(b"kept by another process")
    checkpoints.write_held()
    best = end_trial(study, 0.9)
    surpassed = [end_trial(study, 0.4) for _ in range(5)]
    looked, is_file = [], Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: (looked.append(path.stem), is_file(path))[1])
    checkpoints.write_out()
    assert kept_numbers(made.folder) == [0, 2, under_way, best, 30]
    assert not {f"trial-{number}" for number in surpassed} & set(looked)


def test_a_file_holds_the_head_and_what_it_scored(study):
    made, checkpoints, data = study
    number = end_trial(study, 0.5)
    checkpoints.write_out()
    head = read_head(path_of(made.folder, number))
    for found, expected in zip(
        head.model.get_weights(), drawn_weights(head.metadata.spec, data, seed=number), strict=True
    ):
        assert np.array_equal(found, expected)
    assert (head.metadata.value, head.metadata.trial, head.metadata.study) == (0.5, number, "made")


def test_with_folds_a_trial_has_no_head_of_its_own(study):
    made, checkpoints, _ = study
    end_trial(study, 0.5, folds=3)
    checkpoints.write_out()
    assert kept_numbers(made.folder) == []


def test_what_a_killed_run_left_of_other_heads_is_removed(study):
    made, _, data = study
    end_trial(study, 0.5)
    path_of(made.folder, 7).write_bytes(b"left")
    TopCheckpoints(made.searched(data), keep=2)
    assert kept_numbers(made.folder) == []


def test_a_head_that_a_killed_run_was_writing_is_none_and_goes_where_the_search_goes_on(study):
    made, checkpoints, data = study
    end_trial(study, 0.5)
    checkpoints.write_out()
    for name in (".trial-5.new.hdf5", ".copy-5-1.new.keras"):
        (made.folder / HEADS_FOLDER / name).write_bytes(b"torn")
    (made.folder / HEADS_FOLDER / "trial-6.hdf5").mkdir()
    (made.folder / HEADS_FOLDER / "notes-1.hdf5").write_bytes(b"of somebody else")
    assert kept_numbers(made.folder) == [0]
    assert head_files(made.folder) == [path_of(made.folder, 0)]
    with pytest.raises(InputError, match="--trial: expected one of those kept, 0, found 5"):
        find_head(made.folder, 5)
    (made.folder / FINALISTS).mkdir()
    others = [".report.0123abcd.new.html", ".near_identical.0123abcd.csv", ".my.study.0123abcd.new.json"]
    for name in (".study.0123abcd.new.json", ".near_identical.0123abcd.new.csv", "finalists/.study.00000000.new.json"):
        (made.folder / name).write_bytes(b"torn")
    for name in others:
        (made.folder / name).write_bytes(b"of somebody else")
    TopCheckpoints(made.searched(data), keep=2, alone=False)
    assert len(unfinished_files(made.folder)) == 2  # another process may be writing them
    assert len(list(made.folder.rglob(".*.new.*"))) == 7
    TopCheckpoints(made.searched(data), keep=2)
    assert unfinished_files(made.folder) == []
    assert {path.name for path in made.folder.rglob(".*.*") if "0123" in path.name} == set(others)
    assert list((made.folder / FINALISTS).iterdir()) == []
    assert (made.folder / HEADS_FOLDER / "notes-1.hdf5").is_file()


def test_a_head_that_is_lost_or_another_in_its_place_is_told_and_not_taken_for_it(study):
    made, checkpoints, _ = study
    for accuracy in (0.3, 0.5, 0.6):
        end_trial(study, accuracy)
    checkpoints.write_out()
    best = ranking(made.opened.study)[0]
    path, whole = path_of(made.folder, 2), path_of(made.folder, 2).read_bytes()
    assert (best.number, checkpoints.kept_head(best), list(checkpoints.lost())) == (2, path, [])

    def told() -> str:
        assert checkpoints.kept_head(best) is None
        (line,) = checkpoints.lost()
        return line

    path.unlink()
    assert told().startswith("heads/trial-2.hdf5: expected the head of trial 2, found no file: it cannot be exported")
    path.write_bytes(whole[:3000])
    assert "found a damaged file" in told()
    shutil.copy(path_of(made.folder, 1), path)
    assert "found the head of trial 1 of study 'made'" in told()
    path.unlink()
    path.mkdir()
    assert "found a folder" in told()
    path.rmdir()
    path.write_bytes(whole)
    head = read_head(path)
    split = replace(head.metadata.split, seed=4)
    for other in ({"value": 0.7}, {"split": split}, {"store_fingerprint": "cd" * 32}):
        save_head(path, head.model, replace(head.metadata, **other))
        assert "found the head of another study of this name" in told()
    path.write_bytes(whole)
    assert list(checkpoints.lost()) == []


def test_a_file_where_the_folder_of_heads_belongs_is_named(study):
    made, _, data = study
    (made.folder / HEADS_FOLDER).rmdir()
    (made.folder / HEADS_FOLDER).write_text("a file")
    with pytest.raises(InputError, match="heads: expected a folder, found a file"):
        TopCheckpoints(made.searched(data), keep=2)
