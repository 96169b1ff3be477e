"""A process that is killed where a study's state changes hands: what goes on ends as if nothing had been.

A kill leaves what is on the disk, no more and no less. So one run is enough to die in every place: at each stage, and
after each snapshot, the study directory is copied as it lies there, and later each copy goes on by ``--resume``. The
banks are made ones (``made_bank``): they know which bank a head was in, and cost nothing.
"""

from __future__ import annotations

import shutil
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import build_store
from made_bank import read_head, use_made_banks
from optuna.trial import FrozenTrial

from search import Study, run_study
from search.record.storage import load_study
from search.setup.config import StudyConfig
from search.training.snapshot import Snapshot, Snapshots
from search.training.stages import Stage

STUDY = """
name = "killed"
[run]
trials = 10
epochs = 8
batch_size = 24
pruner = "none"
finalists = 6
repeats = 2
[space]
conv_width = { low = 80, high = 160, step = 16 }
pooling = ["average", "max"]
learning_rate = { low = 1e-3, high = 1e-1, log = true }
"""
MODES: dict[str, dict[str, Any]] = {
    "holdout": {},
    "folds": {"folds": 3},
    "solo": {"engine": "solo"},
    "seldom saved": {"snapshot_every": 1e9},
    "one value": {"finalists": 0},
}
CLOCKS = {
    *("search_seconds", "trial_epochs_per_second", "seconds", "gflops", "fraction_of_peak", "one_at_a_time"),
    *("training_seconds", "bookkeeping_seconds", "bookkeeping_share", "compilations"),
}
"""What a study says of its pace; a process that goes on compiles anew."""


class AtOnce:
    """Stands for the thread that writes snapshots: what is on the disk is known at every moment."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes what a pool of threads takes."""

    def submit(self, function, *arguments):
        done: Future = Future()
        done.set_result(function(*arguments))
        return done

    def shutdown(self) -> None:
        """Nothing is running."""


@dataclass
class Ended:
    """An undisturbed study, and the copies that were taken of it on the way.

    Attributes:
        folder: The study directory.
        found: What it ended in.
        copies: What a kill would have left, by the place: a stage or ``snapshot``, and how often it had come to it.
    """

    folder: Path
    found: dict[str, Any] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)

    def copy(self, what: str) -> None:
        """Takes a copy."""
        name = f"{what} {sum(other.startswith(what) for other in self.copies)}"
        self.copies[name] = Path(shutil.copytree(self.folder, self.folder.with_name(name)))

    def go_on(self, copy: str, **options: Any) -> Study:
        """Resumes a study that was killed there, in the place where it was killed: its storage may be in it."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.copies[copy], self.folder)
        return run_study(out=self.folder, resume=True, progress=False, **options)


@pytest.fixture(scope="module")
def made_banks():
    with pytest.MonkeyPatch.context() as patched:
        use_made_banks(patched)
        patched.setattr("search.training.snapshot.ThreadPoolExecutor", AtOnce)
        patched.setattr(Study, "report", lambda study: study.folder)
        yield


@pytest.fixture(scope="module", params=MODES)
def ended(request, tmp_path_factory, made_banks) -> Ended:
    return search(tmp_path_factory.mktemp(request.param.replace(" ", "-")), **MODES[request.param])


def search(place: Path, **options: Any) -> Ended:
    build_store(place / "store.h5", rows=96)
    (place / "study.toml").write_text(STUDY)
    ended, real = Ended(place / "study"), Snapshots.save

    def saving(snapshots: Snapshots, snapshot: Snapshot) -> None:
        real(snapshots, snapshot)
        ended.copy("snapshot")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Snapshots, "save", saving)
        told = {"features": place / "store.h5", "study": place / "study.toml", "out": ended.folder}
        run_study(**told, progress=False, on_stage=ended.copy, **{"snapshot_every": 0} | options)
    ended.copy("end")
    ended.found = found_in(ended.folder)
    return ended


def found_in(folder: Path) -> dict[str, Any]:
    """All that a study ended in: its summary, its trials and its finalists' runs, its heads to the last bit."""
    config = StudyConfig.read(folder)
    studies = {"trials": load_study(folder, config.name, config.storage)}
    if (folder / "finalists").exists():
        repeats = StudyConfig.read(folder / "finalists")
        studies["repeats"] = load_study(folder / "finalists", repeats.name, repeats.storage)
    heads = {path.name: read_head(path) for path in sorted((folder / "heads").iterdir())}
    return {
        "summary": without_clocks(Study(folder).summary.to_dict()),
        **{name: [facts(trial) for trial in study.get_trials()] for name, study in studies.items()},
        "heads": {name: [array.tobytes() for array in head.model.get_weights()] for name, head in heads.items()},
        "metadata": {name: head.metadata for name, head in heads.items()},
    }


def facts(trial: FrozenTrial) -> tuple[Any, ...]:
    return trial.number, trial.state, trial.value, trial.params, trial.user_attrs, trial.intermediate_values


def without_clocks(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: without_clocks(value) for name, value in told.items() if name not in CLOCKS}
    return [without_clocks(one) for one in told] if isinstance(told, (list, tuple)) else told


def test_a_study_is_copied_wherever_its_state_changes_hands(ended):
    stages = {name.rpartition(" ")[0] for name in ended.copies}
    assert stages >= {"search", "snapshot", "calibration", "test", "summary", "report", "end"}
    if ended.found["summary"]["finalists"]:
        assert stages >= {Stage.REPEATS, Stage.REFIT}
        assert sum(name.startswith(Stage.SMALLER_BANK) for name in ended.copies) >= 1
        assert any(one["stopped_after"] for one in ended.found["summary"]["finalists"]["heads"])


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
