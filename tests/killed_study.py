"""A study of made banks, and what a kill would have left of it in every place: its directory, copied there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import build_store
from made_bank import read_head, use_made_banks
from optuna.trial import FrozenTrial

from search import Study, run_study
from search.record.owner import Owner
from search.record.storage import load_study
from search.setup.config import StudyConfig
from search.training.snapshot import Snapshot, Snapshots

STUDY = """
name = "killed"
[run]
trials = 10
epochs = 8
batch_size = 24
pruner = "none"
patience = 3
[space]
conv_width = { low = 80, high = 160, step = 16 }
pooling = ["average", "max"]
learning_rate = { low = 1e-3, high = 1e-1, log = true }
"""
CLOCKS = {
    *("search_seconds", "trial_epochs_per_second", "seconds", "gflops", "fraction_of_peak", "one_at_a_time"),
    *("training_seconds", "bookkeeping_seconds", "bookkeeping_share", "compilations", "cost_of_use"),
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
        options: What it was searched with.
        found: What it ended in.
        copies: What a kill would have left, by the place: a stage or ``snapshot``, and how often it had come to it.
    """

    folder: Path
    options: dict[str, Any]
    found: dict[str, Any] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)

    def copy(self, what: str) -> None:
        """Takes a copy."""
        name = f"{what} {sum(other.startswith(what) for other in self.copies)}"
        self.copies[name] = Path(shutil.copytree(self.folder, self.folder.with_name(name)))

    @property
    def epochs(self) -> int:
        """Epochs of the search's bank, before the repeats; where a snapshot followed each."""
        before = list(self.copies)[: list(self.copies).index("repeats 0")]
        return sum(name.startswith("snapshot") for name in before) - 1

    def begin_anew(self, **options: Any) -> Study:
        """Searches once more, in the same place."""
        shutil.rmtree(self.folder)
        return run_study(**self.options | options)

    def go_on(self, copy: str, **options: Any) -> Study:
        """Resumes a study that was killed there, in the place where it was killed: its storage may be in it."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.copies[copy], self.folder)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Owner, "is_alive", False)  # the process that a database names: it was killed
            return run_study(out=self.folder, resume=True, progress=False, **options)


@contextmanager
def made_searches() -> Iterator[None]:
    """Lets searches run in made banks, write their snapshots at once and no report."""
    with pytest.MonkeyPatch.context() as patched:
        use_made_banks(patched)
        patched.setattr("search.training.snapshot.ThreadPoolExecutor", AtOnce)
        patched.setattr(Study, "report", lambda study: study.folder)
        yield


def search(place: Path, **options: Any) -> Ended:
    """Runs a study undisturbed; with ``stores`` over so many of other shapes."""
    shapes = [(2, 2, 8), (1, 3, 4), (3, 3, 6)]
    stores = [build_store(place / "store.h5", rows=96)]
    for number in range(1, options.pop("stores", 1)):
        stores.append(build_store(place / f"store-{number}.h5", rows=96, shape=shapes[number], seed=number))
    (place / "study.toml").write_text(STUDY)
    folder = place / "study"
    if "storage" in options:
        options["storage"] = options["storage"].format(folder=folder)
    told = {"features": stores, "study": place / "study.toml", "out": folder, "progress": False}
    told |= {"finalists": 6, "repeats": 2, "folds": 0}
    ended, real = Ended(folder, {**told, "snapshot_every": 0, **options}), Snapshots.save

    def saving(snapshots: Snapshots, snapshot: Snapshot) -> None:
        real(snapshots, snapshot)
        ended.copy("snapshot")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Snapshots, "save", saving)
        run_study(**ended.options, on_stage=ended.copy)
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
    noted = {name: value for name, value in trial.user_attrs.items() if name != "pauses"}
    return trial.number, trial.state, trial.value, trial.params, noted, trial.intermediate_values


def without_clocks(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: without_clocks(value) for name, value in told.items() if name not in CLOCKS}
    return [without_clocks(one) for one in told] if isinstance(told, (list, tuple)) else told
