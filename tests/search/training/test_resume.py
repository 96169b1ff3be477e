"""A snapshot beside a database holds for as long as the trials there have come no further."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import optuna
import pytest
from made_snapshots import OTHER, asked, leave_snapshot
from made_study import MadeStudy, make_config

from features.runtime.errors import InputError
from features.runtime.files import being_written
from heads.metrics.scoring import Score
from search.record.mirror import Mirror
from search.record.opened_study import DatabaseStudy, OpenedStudy, held
from search.record.storage import JOURNAL, load_study, open_record
from search.setup.file_names import SNAPSHOT_FILE
from search.training import throughput
from search.training.resume import resumable
from search.training.snapshot import Saved, read_snapshot
from search.training.throughput import THROUGHPUT_FILE, Throughput

METER = Throughput(epochs=7, head_epochs=14, page_epochs=20, room=28, training_seconds=1.5, compilations=2)


@pytest.fixture
def study() -> optuna.Study:
    """One trial that was told, one after two epochs, one that waits."""
    made = optuna.create_study()
    made.tell(made.ask(), 1.0)
    running = made.ask()
    for epoch in (1, 2):
        running.report(0.5, epoch)
    made.ask()
    return made


@pytest.fixture
def saved(tmp_path) -> Saved:
    leave_snapshot(tmp_path, {1: 2}, waiting=[2], finished=1, throughput=METER)
    found = read_snapshot(tmp_path)
    assert found is not None
    return found


def opened(study: optuna.Study) -> OpenedStudy:
    return DatabaseStudy(study, Mock(Mirror))


def test_of_the_same_moment_it_is_resumable(study, saved, tmp_path):
    assert resumable(tmp_path, saved, opened(study)) is saved
    study.ask()  # asked for ahead, and begun again where the process ended then
    assert resumable(tmp_path, saved, opened(study)) is saved
    assert (tmp_path / SNAPSHOT_FILE).exists()


def _report(study: optuna.Study) -> None:
    optuna.Trial(study, study.trials[1]._trial_id).report(0.4, 3)


@pytest.mark.parametrize(
    "further",
    [
        _report,
        lambda study: study.tell(1, 0.3),
        lambda study: study.tell(2, state=optuna.trial.TrialState.FAIL),
        lambda study: study.tell(study.ask(), 0.1),
    ],
    ids=["reported", "told", "failed", "another told"],
)
def test_where_the_trials_have_come_further_what_was_measured_is_kept(study, saved, tmp_path, further):
    further(study)
    being_written(tmp_path / SNAPSHOT_FILE).write_bytes(b"torn")
    assert resumable(tmp_path, saved, opened(study)) is None
    assert [path.name for path in tmp_path.iterdir()] == [THROUGHPUT_FILE]
    assert Throughput.read(tmp_path) == METER


def test_of_another_study_it_is_none(saved, tmp_path):
    assert resumable(tmp_path, saved, opened(optuna.create_study())) is None


def beside_journal(folder: Path) -> MadeStudy:
    """A study with two trials that are through and one that runs, its snapshot, and two trials since."""
    made = MadeStudy(folder, make_config())
    made.train(2)
    asked = made.begin()
    made.opened.flush()
    leave_snapshot(folder, {asked.number: 2}, spec=asked.spec, journal=made.opened.journal)
    made.train(2)
    made.opened.flush()
    return made


def gone_on(folder: Path) -> tuple[Saved | None, OpenedStudy]:
    saved = read_snapshot(folder)
    assert saved is not None
    opened = open_record(folder, "made", None, direction="maximize", resume=True, keep_bytes=saved.journal_bytes)
    with held(opened, None):
        return resumable(folder, saved, opened), opened


def test_a_journal_is_cut_back_to_it_once_something_follows(tmp_path):
    beside_journal(tmp_path).close()
    before = (tmp_path / JOURNAL).read_bytes()
    saved, opened = gone_on(tmp_path)
    assert saved is not None
    assert len(opened.study.trials) == 3
    assert (tmp_path / JOURNAL).read_bytes() == before
    again = open_record(tmp_path, "made", None, direction="maximize", resume=True, keep_bytes=saved.journal_bytes)
    again.flush()
    again.close()
    assert (tmp_path / JOURNAL).read_bytes().startswith(before[: saved.journal_bytes])
    assert load_study(tmp_path, "made", None).trials == opened.study.trials


@pytest.mark.parametrize("noted", [True, False], ids=["with the hash", "from before it was noted"])
def test_of_another_journal_it_is_refused_and_nothing_is_cut_off(tmp_path, noted):
    beside_journal(tmp_path / "study").close()
    other = MadeStudy(tmp_path / "other", make_config(seed=4))
    asked = other.begin()
    other.opened.flush()
    size = (tmp_path / "study" / JOURNAL).read_bytes().find(b"\n", (tmp_path / "other" / JOURNAL).stat().st_size) + 1
    journal = Mock(size=lambda: size, sha256=lambda: "ab" * 32 if noted else None)
    leave_snapshot(tmp_path / "study", {asked.number: 2}, spec=OTHER, journal=journal)
    other.close()
    before = (tmp_path / "study" / JOURNAL).read_bytes()
    why = "found one that goes with another journal" if noted else "found a damaged file"
    with pytest.raises(InputError, match=f"snapshot.npz: expected .*{why}.*; remove it to begin the running trials"):
        gone_on(tmp_path / "study")
    assert (tmp_path / "study" / JOURNAL).read_bytes() == before


@pytest.mark.parametrize(
    ("size", "why"),
    [(10**6, "expected at least the 1000000 bytes that"), (90, "expected a line that ends after the 90 bytes that")],
)
def test_of_a_journal_of_another_length_it_is_refused_with_what_to_do(tmp_path, size, why):
    beside_journal(tmp_path).close()
    leave_snapshot(tmp_path, {2: 2}, journal=Mock(size=lambda: size, sha256=lambda: None))
    before = (tmp_path / JOURNAL).read_bytes()
    with pytest.raises(InputError, match=f"{JOURNAL}: {why} .*; remove the snapshot.npz beside it to begin"):
        gone_on(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == before


@pytest.mark.parametrize("finished", [-1, "many", 1.5, [1]])
def test_what_is_no_count_of_finished_trials_makes_a_snapshot_a_damaged_one(tmp_path, finished):
    leave_snapshot(tmp_path, {1: 2})
    with pytest.raises(InputError, match=r"expected a snapshot, found a damaged file"):
        changed(tmp_path, lambda content: content.update(finished=finished))


# --- what a snapshot says ---------------------------------------------------------------------------------------------


def said_by(folder: Path) -> str:
    with np.load(folder / SNAPSHOT_FILE) as file:
        return str(file["content"])


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Saved:
    """Reads a snapshot that says something else."""
    content = json.loads(said_by(folder))
    change(content)
    with np.load(folder / SNAPSHOT_FILE) as file:
        parts = dict(file) | {"content": np.array(json.dumps(content))}
    np.savez(folder / SNAPSHOT_FILE, **parts)
    saved = read_snapshot(folder)
    assert saved is not None
    return saved


@pytest.mark.parametrize("several", [False, True], ids=["one store", "several"])
def test_its_text_is_what_it_has_ever_been(tmp_path, several):
    stores = ("one", "two") if several else ("",)
    leave_snapshot(tmp_path, {1: 2, 5: 0}, waiting=[2], finished=1, throughput=METER, stores=stores)
    shape = (
        '{"pages": 8, "slots": 8, "tiles": 8, "folds": 1, "feature_shape": [2, 2, 4], "classes": 4, "batch": 8,'
        ' "units": 4, "dense_layers": 0, "activations": ["relu"], "poolings": ["flatten"], "batch_norm": [true],'
        ' "dropout": true, "dense_dropout": false, "sgd": [false], "lanes": 1}'
    )
    expected = (
        '{"schema": 1, "journal_bytes": 0, "journal_sha256": null, "finished": 1, "taken": "", "epoch": 7,'
        f' "shape": {shape}, "folds": 1, "waiting": [2], "meter": {{"epochs": 7, "head_epochs": 14,'
        ' "page_epochs": 20, "room": 28, "operations": 0.0, "training_seconds": 1.5, "bookkeeping_seconds": 0.0,'
        ' "compilations": 2}, "members": [{"number": 1, "first_epoch": 2, "epochs": 2, "best": {"epoch": 1,'
        ' "train_loss": 0.5, "validation": {"loss": 0.5, "accuracy": 0.75, "merit": 0.75}, "learning_rate": 0.01},'
        ' "rates": [0.01, 0.01], "place": [0, [0]]}, {"number": 5, "first_epoch": 2, "epochs": 0, "best": null,'
        ' "rates": [], "place": [1, [1]]}]}'
    )
    if several:
        shapes = f', "shapes": {{"one": {shape}, "two": {shape}}}, "folds": 1, "waiting"'
        expected = expected.replace(', "folds": 1, "waiting"', shapes)
    assert re.sub('"taken": "[^"]*"', '"taken": ""', said_by(tmp_path)) == expected


def test_a_trial_without_its_place_makes_it_a_damaged_one(tmp_path):
    """No search writes such a one, and none could go on with it."""
    leave_snapshot(tmp_path, {1: 2})
    with pytest.raises(InputError, match=r"expected a snapshot, found a damaged file"):
        changed(tmp_path, lambda content: content["members"][0].update(place=None))


def test_of_an_older_version_it_says_what_that_meant(tmp_path):
    """Heads were ranked by accuracy alone, and each page had room for the widest head there could be."""
    leave_snapshot(tmp_path, {1: 2})

    def older(content: dict[str, Any]) -> None:
        del content["members"][0]["best"]["validation"]["merit"], content["shape"]["tiles"]

    saved = changed(tmp_path, older)
    best = saved.content.members[0].banked_trial(asked(1)).best
    assert best is not None
    assert best.validation == Score(0.5, 0.75, 0.75)
    assert saved.content.shape.tiles == saved.content.shape.most_tiles > 0


@pytest.mark.parametrize("raises", [False, True])
def test_time_counts_where_it_was_spent_also_where_that_raises(monkeypatch, raises):
    clock = iter([0.0, 1.0, 3.0, 10.0, 20.0, 25.0])
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    meter = Throughput()
    with suppress(ZeroDivisionError), meter.bookkeeping(), meter.moving():
        _ = 1 / (not raises)
    with suppress(ZeroDivisionError), meter.training():
        _ = 1 / (not raises)
    assert (meter.training_seconds, meter.bookkeeping_seconds) == (2.0 + 5.0, 10.0 - 2.0)


def test_totals_come_back_as_they_were_and_what_is_none_counts_as_none_and_is_said(tmp_path, capsys):
    assert Throughput.read(tmp_path) == Throughput()
    METER.write(tmp_path)
    assert Throughput.read(tmp_path) == METER
    path: Path = tmp_path / THROUGHPUT_FILE
    before = {name: value for name, value in METER.to_dict().items() if name != "compilations"}
    path.write_text(json.dumps(before))  # of a version that did not count them
    assert Throughput.read(tmp_path).head_epochs == 14
    for damaged in ('{"epochs": -1}', '{"epochs": "many"}', '{"room": Infinity}', "[]", "[" * 10**5, "", "\0" * 50):
        path.write_text(damaged)
        assert Throughput.read(tmp_path) == Throughput()
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"note: {path}: ")
