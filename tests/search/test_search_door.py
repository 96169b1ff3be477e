"""``search.run_study`` and ``search.open_study``: what a notebook writes, in this process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, build_store
from tiny_study import STUDY, table

import search
from features.rows.feed import Feed
from features.runtime.errors import BottleneckError, InputError
from features.runtime.lock import WriterLock
from features.store.reader import FeatureStore
from heads.files.head_file import read_head
from heads.metrics.scoring import predict_probabilities, score
from heads.model.spec import HeadSpec
from search import RunOptions, Study, open_study, run_study
from search.setup.config import FILE
from search.setup.images import ImageOptions
from search.training.display import Display

ONE_KIND = STUDY.replace('["flatten", "average", "max"]', '["flatten"]').replace("dense_layers = [0, 1]\n", "")
"""Of which a bank is compiled sooner."""
FEW = {"trials": 5, "epochs": 4, "folds": 0, "finalists": 2, "repeats": 2, "progress": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A store, a study file, and ``study``, a finished study."""
    folder = tmp_path_factory.mktemp("door")
    build_store(folder / "store.h5", rows=240, views=("identity", "flip"), shape=(3, 3, 8))
    (folder / "tiny.toml").write_text(ONE_KIND)
    run_study(FeatureStore(folder / "store.h5"), study=folder / "tiny.toml", out=folder / "study", **FEW)
    return folder


@pytest.fixture
def study(world) -> Study:
    return open_study(world / "study")


def test_importing_search_loads_nothing_that_takes_its_time():
    heavy = {"keras", "tensorflow", "jax", "optuna", "pandas", "plotly", "pydantic", "numpy"}
    code = f"import sys, search; assert 'run_study' in dir(search); print(*sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "\n"
    assert {name: getattr(search, name).__name__ for name in search.__all__} == {name: name for name in search.__all__}
    with pytest.raises(AttributeError, match="no_such"):
        search.no_such  # noqa: B018


def test_trials_are_a_table_of_results_and_parameters(study):
    trials = study.trials()
    assert isinstance(trials, pd.DataFrame)
    assert trials.index.tolist() == list(range(5))
    first = trials.loc[0]
    assert first["is_article"]
    assert trials["is_article"].sum() == 1
    spec = {name: value for name, value in HeadSpec().to_dict().items() if name != "schema"}
    assert {name: first[name] for name in spec} == spec
    completed = trials[trials["state"] == "completed"]
    assert len(completed) == study.summary.completed
    assert completed["value"].max() >= first["value"] > 0.25
    assert (completed["best_epoch"] <= completed["epochs"]).all()
    assert (completed["seconds"] > 0).all()
    assert study.summary.best.value in completed["value"].tolist()


def test_figures_are_the_reports_by_name_and_drawn_once(study):
    figures = study.figures()
    assert {"history", "learning-curves", "what-ended-when", "repeats", "value-and-size", "parameter-dropout"} <= set(
        figures
    )
    history = figures["history"]
    assert sum(len(trace.x or ()) for trace in history.data) >= study.summary.completed
    assert figures["history"] is history
    with pytest.raises(KeyError):
        figures["nonsense"]


def test_the_chosen_head_is_the_one_that_export_writes(study, tmp_path):
    model = study.best_head()
    assert isinstance(model, keras.Model)
    out = study.export(tmp_path / "best.hdf5")
    assert out == tmp_path / "best.hdf5"
    written = read_head(out)
    assert written.metadata.trial == study.summary.best.number
    for mine, theirs in zip(model.get_weights(), written.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    together = read_head(study.export(tmp_path / "all.hdf5", ensemble=True))
    assert together.metadata.trials == tuple(study.summary.ensemble.trials)
    with pytest.raises(InputError, match="--ensemble: expected no --trial beside it, found --trial 0"):
        study.export(tmp_path / "x.hdf5", ensemble=True, trial=0)
    with pytest.raises(InputError, match="--trial: expected one of those kept"):
        study.export(tmp_path / "x.hdf5", trial=77)


def test_a_trials_own_head_scores_what_the_table_says(study, world, tmp_path):
    trials = study.trials()
    feed = Feed(FeatureStore(world / "store.h5"), rows_of(study, "validation"), memory_bytes=2**28)
    head = read_head(study.export(tmp_path / "trial.hdf5", trial=0))
    assert score(predict_probabilities(head.model, feed), feed.labels).accuracy == trials.loc[0, "value"]


def rows_of(study: Study, part: str) -> np.ndarray:
    from search.record.study_record import read_split

    return np.array(read_split(study.folder)["rows"][part])


def test_a_study_shows_itself_and_writes_its_report(study):
    assert study.report().read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    text, page = repr(study), study._repr_html_()
    for said in ("tiny, finished", "5 of 5", study.verdict):
        assert said in text
    assert "<table>" in page
    assert "tiny, finished" in page


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


def test_a_study_can_be_looked_at_while_its_search_holds_it(study):
    with WriterLock(study.folder / FILE):
        assert open_study(study.folder).progress == "running"
        assert len(study.trials()) == 5
        with pytest.raises(BottleneckError, match="another process is writing it"):
            run_study(out=study.folder, resume=True, progress=False)


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


def test_what_is_no_study_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"study\.json: expected a study directory"):
        open_study(tmp_path)


def test_the_signature_is_that_of_the_options():
    import inspect

    names = inspect.signature(run_study).parameters.keys()
    assert names == RunOptions.model_fields.keys() | ImageOptions.model_fields.keys() | {"progress", "on_stage"}
    assert all(f"    {name}: " in run_study.__doc__ for name in RunOptions.model_fields)
