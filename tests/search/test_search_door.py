"""``search.run_study`` and ``search.open_study``: what a notebook writes, in this process."""

from __future__ import annotations

import gc
import inspect
import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from conftest import ROOT
from killed_study import made_searches
from tiny_study import ONE_KIND, table, tiny_store

import search
from features.runtime.command import console
from features.runtime.errors import InputError
from features.store.reader import FeatureStore
from search import RunOptions, open_study, run_study, run_study_on_ray
from search.on_ray import NOT_HERE
from search.running import quiet_unless
from search.setup.images import ImageOptions
from search.setup.stores import StudyData
from search.training.display import Display
from search.training.pool import Pool

FEW = {"trials": 5, "epochs": 4, "folds": 0, "finalists": 2, "repeats": 2, "progress": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A store, a study file, and ``study``, a finished study of made banks."""
    folder = tmp_path_factory.mktemp("door")
    tiny_store(folder)
    (folder / "tiny.toml").write_text(ONE_KIND)
    with made_searches():
        found = run_study(FeatureStore(folder / "store.h5"), study=folder / "tiny.toml", out=folder / "study", **FEW)
    assert (found.progress, len(found.trials())) == ("finished", 5)
    return folder


def test_importing_search_loads_nothing_that_takes_its_time():
    heavy = {"keras", "tensorflow", "jax", "optuna", "pandas", "plotly", "pydantic", "numpy"}
    code = f"import sys, search; assert 'run_study' in dir(search); print(*sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "\n"
    named = set(search.__all__) - {"OnStage"}  # a type in other words has no name of its own
    assert {name: getattr(search, name).__name__ for name in named} == {name: name for name in named}
    with pytest.raises(AttributeError, match="no_such"):
        search.no_such  # noqa: B018


@pytest.mark.slow
def test_a_study_that_is_stopped_goes_on_and_is_that_of_an_undisturbed_run(world, tmp_path, monkeypatch, capsys):
    options = FEW | {"study": world / "tiny.toml", "finalists": 0, "trials": 6}
    undisturbed = run_study(world / "store.h5", out=tmp_path / "plain", **options)
    assert capsys.readouterr().err == ""  # progress=False
    epochs, real = [], Display.epoch

    def stopping(display: Display, trained: int = 1) -> None:
        real(display, trained)
        epochs.append(trained)
        if len(epochs) == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Display, "epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            run_study(world / "store.h5", out=tmp_path / "stopped", **options)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    study = open_study(tmp_path / "stopped")
    assert study.progress == "stopped"
    assert study.verdict is None
    assert "running" in set(study.trials()["state"])
    assert "stopped" in repr(study)

    resumed = run_study(out=tmp_path / "stopped", resume=True, progress=False)
    assert study.progress == "finished"  # the same object, read anew
    assert table(resumed.folder) == table(undisturbed.folder)
    more = run_study(out=tmp_path / "stopped", resume=True, trials=7)
    assert len(more.trials()) == 7
    assert "trial 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fold": 5}, "fold: expected an option of a search, found none of that name; is folds meant?"),
        ({"xyzzy": 5}, "xyzzy: expected an option of a search, found none of that name; there are "),
        ({"trials": 0}, "--trials: expected greater than or equal to 1, found 0"),
        ({"batch_size": "many"}, "--batch-size: expected a valid integer"),
        ({"sampler": "oracle"}, "--sampler: expected 'tpe', 'bohb', 'random' or 'qmc', found 'oracle'"),
        ({"folds": 1}, "--folds: expected 0, or at least 2 with the fused engine, found 1 with fused"),
        ({"backend": "jax"}, "--backend: expected tensorflow, already in use, found jax"),
        ({"out": "study"}, "expected no study there yet, found study.json; pass --resume"),
        ({"out": "study", "resume": True, "epochs": 9}, "study.json: epochs: expected 4, found 9"),
        ({"features": "absent.h5"}, "absent.h5"),
        ({"on_stage": 5}, "on_stage: expected a function, found int"),
    ],
)
def test_what_does_not_fit_is_refused_in_the_commands_line(world, monkeypatch, options, said):
    monkeypatch.chdir(world)
    before = {path.name for path in world.iterdir()}
    with pytest.raises(InputError) as refused:
        run_study(**{"features": "store.h5", "study": "tiny.toml", "out": "new", "progress": False} | options)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (world / "new" / "study.json").exists()
    assert {path.name for path in world.iterdir()} - {"new"} == before


def test_a_study_whose_backend_is_not_there_says_that_it_is_the_studys(world, tmp_path):
    copy = tmp_path / "study"
    shutil.copytree(world / "study", copy)
    record = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps(record | {"backend": "jax"}))
    with pytest.raises(InputError) as refused:
        run_study(out=copy, resume=True, progress=False)
    hint = f"{copy / 'study.json'} has it: a study stays on the backend that it was begun on"
    assert str(refused.value) == f"--backend: expected tensorflow, already in use, found jax; {hint}"


def test_a_search_leaves_the_process_as_it_was(world, tmp_path, capsys):
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        drawn = random.getstate()
        with made_searches(), np.errstate(all="raise"):
            study = run_study(world / "store.h5", study=world / "tiny.toml", out=tmp_path / "study", **FEW)
            assert set(np.geterr().values()) == {"raise"}
        assert random.getstate() == drawn
        assert len(study.trials()) == 5
        assert "A new study" not in capsys.readouterr().err
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(verbosity)


def test_a_stopped_search_leaves_memory_to_the_cell_that_goes_on_with_it(world, tmp_path, monkeypatch):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Display, "epoch", stopped)
    before = {id(one) for one in gc.get_objects() if isinstance(one, StudyData | Pool)}
    options = FEW | {"study": world / "tiny.toml", "out": tmp_path / "study"}
    with made_searches(), pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps the last error
        run_study(world / "store.h5", **options)
    assert "pool.py" in str(kept.traceback)
    gc.collect()  # which made searches do without
    assert not [one for one in gc.get_objects() if isinstance(one, StudyData | Pool) and id(one) not in before]


def test_of_two_searches_at_once_the_last_one_that_ends_is_heard_again():
    first, second = quiet_unless(False), quiet_unless(False)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert console.quiet
    second.__exit__(None, None, None)
    assert not console.quiet


def test_an_open_study_is_read_on_from_wherever_the_process_goes(world, tmp_path, monkeypatch):
    monkeypatch.chdir(world)
    study = open_study("study")
    found = study.verdict
    assert study.record.folder == Path("study")
    monkeypatch.chdir(tmp_path)
    assert (study.verdict, len(study.trials())) == (found, 5)


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"study\.json: expected a study directory"):
        open_study(tmp_path)


def test_the_signature_is_that_of_the_options():
    names = inspect.signature(run_study).parameters.keys()
    assert names == RunOptions.model_fields.keys() | ImageOptions.model_fields.keys() | {"progress", "on_stage"}
    assert all(f"    {name}: " in run_study.__doc__ for name in RunOptions.model_fields)


def test_on_a_cluster_it_is_that_of_the_options_that_are_taken_there():
    names = inspect.signature(run_study_on_ray).parameters.keys()
    taken = RunOptions.model_fields.keys() - NOT_HERE.keys()
    assert names == taken | {"address", "workers", "gpus_per_worker", "cpus_per_worker", "progress"}
    assert all(f"    {name}: " in run_study_on_ray.__doc__ for name in taken)


def test_what_a_study_is_made_of_is_exported(world):
    study = open_study(world / "study")
    assert isinstance(study.record, search.StudyRecord)
    assert isinstance(study.config, search.StudyConfig)
    assert study.progress is search.Progress.FINISHED
    assert search.FigureName.HISTORY in study.figures()
    assert inspect.signature(run_study).parameters["on_stage"].annotation == "OnStage"
    assert search.OnStage.__args__[0] is search.Stage
