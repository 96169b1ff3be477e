"""What is said of a head that leaves a study before its end, or while it ends again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from commands import succeed
from conftest import ROOT

import search
from features.runtime.errors import BottleneckError
from features.runtime.files import write_json
from heads.files.head_file import read_head, save_head
from search.finish import export
from search.finish.export import recommended_head
from search.finish.export_choice import what_leaves
from search.record.head_files import path_of, refit_path_of
from search.record.study_record import read_record
from search.setup.export_options import ExportOptions

pytestmark = pytest.mark.usefixtures("drawn_once")

ARCHIVES = ROOT / "tests" / "archives"
FINISHED = ARCHIVES / "finished"
RUNNING = ("--backend", keras.backend.backend())


def test_a_study_that_has_not_ended_says_what_its_head_is(tmp_path, capsys):
    out, rest = tmp_path / "out.hdf5", "not repeated, calibrated or tested"
    for name, options, what in (
        ("stopped", (), "the best of 1 trial so far"),
        ("stopped-repeats", (), "the best of 6 trials so far"),
        ("stopped-repeats", ("--which", "article"), "the article's head of its trial"),
    ):
        said = succeed("search.export", ARCHIVES / name, out, *options, *RUNNING)
        assert said.err.startswith(f"{out}: the search has not ended: this is {what}, {rest}\n")
    for folder, options in ((FINISHED, ()), (FINISHED, ("--which", "article")), (ARCHIVES / "stopped", ("--trial", 0))):
        assert "has not ended" not in succeed("search.export", folder, out, *options, *RUNNING).err
    search.open_study(ARCHIVES / "stopped").export(out)
    search.open_study(ARCHIVES / "stopped").best_head()
    noted = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(noted) == 2
    assert all("the search has not ended: this is the best of 1 trial so far" in line for line in noted)


@pytest.mark.parametrize(
    ("which", "what", "rest"),
    [("winner", "the best of 6 trials so far", ""), ("article", "the article's head", " of its trial")],
)
def test_of_one_that_an_end_has_trained_again_it_is_not_said_that_none_has(tmp_path, which, what, rest):
    study = shutil.copytree(FINISHED, tmp_path / "study")
    (study / "summary.json").unlink()  # as a kill before the next end leaves it
    record = read_record(study)
    number = (record.summary.best if which == "winner" else record.summary.article).number
    again = f"{what}, as it was trained again on all rows by an earlier end, or by one that is not through"
    for path, told in (
        (refit_path_of(study, number), again),
        (path_of(study, number), f"{what}{rest}, not repeated, calibrated or tested"),
    ):
        leaving = what_leaves(record, ExportOptions(which=which))
        assert leaving.paths == [path]
        assert leaving.said == f"the search has not ended: this is {told}"
        refit_path_of(study, number).unlink(missing_ok=True)


class EndingAgain:
    """Stands before what starts the backend: meanwhile the study ends again, with other heads and temperatures."""

    def __init__(self, study: Path, times: int) -> None:
        self._study, self._left, self._start = study, times, export.start_backend
        self.said = json.loads((study / "summary.json").read_text())

    def __call__(self) -> None:
        self._start()
        if self._left:
            self._left -= 1
            write_json(self._study / "summary.json", self.said | {"withdrawn": True})
            for path in self._study.glob("heads/refit-*.hdf5"):
                head = read_head(path)
                head.model.set_weights([1.5 * array for array in head.model.get_weights()])
                save_head(path, head.model, head.metadata)
            self.said["ensemble"]["temperature"] += 1
            write_json(self._study / "summary.json", self.said)


@pytest.fixture
def study(tmp_path) -> Path:
    """The finished study, which recommends its finalists' average."""
    folder = shutil.copytree(FINISHED, tmp_path / "study")
    told = json.loads((folder / "summary.json").read_text())
    contender = {"kind": "ensemble", "trials": [1, 2], "value": 1.0, "behind": 0.0, "error": 0.0}
    told["recommendation"] = {"kind": "ensemble", "contenders": [contender]}
    write_json(folder / "summary.json", told)
    return folder


@pytest.mark.parametrize("is_exported", [True, False])
def test_an_average_is_of_one_end_also_where_the_study_ends_again_meanwhile(study, tmp_path, monkeypatch, is_exported):
    monkeypatch.setattr(export, "start_backend", ending := EndingAgain(study, times=1))
    if is_exported:
        head = read_head(search.open_study(study).export(tmp_path / "out.hdf5", which="ensemble"))
    else:
        head = recommended_head(study)
    assert head.metadata.temperature == ending.said["ensemble"]["temperature"]
    (kernel,) = (array for array in read_head(refit_path_of(study, 1)).model.get_weights() if array.ndim == 4)
    assert any(np.array_equal(kernel, array) for array in head.model.get_weights())


def test_one_that_ends_again_and_again_is_to_be_exported_later(study, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "start_backend", EndingAgain(study, times=2))
    with pytest.raises(BottleneckError, match=r"study: the study ends again at this moment; export once more$"):
        search.open_study(study).export(tmp_path / "out.hdf5", which="ensemble")
    assert not (tmp_path / "out.hdf5").exists()


def test_a_head_that_a_later_end_has_removed_is_not_missed(study, tmp_path, monkeypatch):
    def end_again() -> None:
        refit_path_of(study, 2).unlink(missing_ok=True)
        ending.said["ensemble"]["trials"] = [1, 0]
        ending()

    ending = EndingAgain(study, times=1)
    monkeypatch.setattr(export, "start_backend", end_again)
    head = read_head(search.open_study(study).export(tmp_path / "out.hdf5", which="ensemble"))
    assert head.metadata.trials == (1, 0)
