"""The commands that a report prints do what stands beside them, or are not there."""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path

import pytest
from made_study import MadeStudy, make_config

from features.runtime.errors import InputError
from search.finish.export_choice import Leaving
from search.record.study_record import StudyRecord, read_record
from search.review import exports
from search.review.exports import export_of_ensemble, export_of_recommended
from search.review.report import make_report
from search.setup.own_function import OwnHeadRecord, has_command


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    made = MadeStudy(tmp_path_factory.mktemp("commands") / "study", make_config())
    made.train(12)
    made.conclude()
    made.keep_head(read_record(made.folder).summary.best.number)
    return made.close()


def commands(record: StudyRecord) -> list[str]:
    """The lines of a report to be copied, but for the study file."""
    blocks = re.findall(r"<pre[^>]*>(.*?)</pre>", make_report(record), re.DOTALL)
    return [line for block in map(html.unescape, blocks[:-1]) for line in block.strip().split("\n")]


def test_only_exports_that_there_are_are_told(finished, tmp_path):
    export = f"python -m search.export {finished}"
    told = [line for line in commands(read_record(finished)) if "search.export" in line]
    assert told == [f"{export} best.hdf5", f"{export} trial.hdf5 --trial NUMBER"]  # none of the other finalists' heads
    made = MadeStudy(tmp_path / "study", make_config())
    made.train(0)
    assert not [line for line in commands(read_record(made.folder)) if "search.export" in line]
    made.train(3)
    record = read_record(made.close())
    made.keep_head(record.summary.best.number)
    assert [line.split()[4:] for line in commands(record) if "search.export" in line] == [
        ["best.hdf5"],
        ["trial.hdf5", "--trial", "NUMBER"],
    ]
    assert "The best head so far" in make_report(record)


def test_heads_that_only_their_backbones_bring_together_leave_with_them(finished, monkeypatch):
    def what_leaves(_record, choice):
        if choice.which == "ensemble" and not choice.with_backbone:
            raise InputError("--which", expected="heads that one file can hold", found="others")
        return Leaving([Path("one.hdf5")] * 2, remark="" if choice.with_backbone else "recommended is another")

    monkeypatch.setattr(exports, "what_leaves", what_leaves)
    best, ensemble = (way(read_record(finished)) for way in (export_of_recommended, export_of_ensemble))
    assert best.command.endswith(" best.keras --with-backbone")
    assert ensemble.command.endswith(" ensemble.keras --which ensemble --with-backbone")


def test_a_function_that_no_command_line_can_name_is_given_in_python(tmp_path):
    own = {"engine": "solo", "own_head": OwnHeadRecord(function="x:build"), "space": {}}
    study = MadeStudy(tmp_path / "study", make_config(head="__main__:build", **own))
    study.close()
    text = html.unescape(make_report(read_record(study.folder)))
    assert "--head" not in text
    assert f"run_study(out='{study.folder}', resume=True, head=build)" in text
    (again,) = re.findall(r"run_study\(features=.*?\)", text)
    call = ast.parse(again, mode="eval").body
    assert {"features": "'store.h5'", "head": "build", "trials": "12"}.items() <= {
        word.arg: ast.unparse(word.value) for word in call.keywords
    }.items()
    assert [*map(has_command, ("my.heads:build", "own.py:build", "a:b.<locals>.c", "a:<lambda>"))] == [
        *(True, True, False, False)
    ]
