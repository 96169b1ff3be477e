"""What is said of a head that leaves a study before its end."""

from __future__ import annotations

import shutil

import keras
import pytest
from commands import succeed
from conftest import ROOT

import search
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
