"""Heads leave a study in a process that is somebody's own: on its backend, and without a trace in it."""

from __future__ import annotations

import json
import random
import shutil

import keras
from conftest import ROOT

from search import open_study
from search.finish.export import export_head, recommended_head
from search.setup.export_options import ExportOptions

FINISHED = ROOT / "tests" / "archives" / "finished"


def test_a_study_of_the_other_backend_leaves_on_the_one_that_runs(tmp_path):
    shutil.copytree(FINISHED, tmp_path / "study")
    told = json.loads((tmp_path / "study" / "study.json").read_text())
    told["backend"] = {"tensorflow": "jax", "jax": "tensorflow"}[keras.backend.backend()]
    (tmp_path / "study" / "study.json").write_text(json.dumps(told))
    assert recommended_head(tmp_path / "study").model
    assert export_head(tmp_path / "study", tmp_path / "best.hdf5", ExportOptions()).path.is_file()


def test_random_draws_what_it_would_have_drawn(tmp_path):
    study, before = open_study(FINISHED), random.getstate()
    assert study.best_head()
    assert study.export(tmp_path / "best.hdf5").is_file()
    assert random.getstate() == before
