"""What a search ends with on the screen, and a study says of itself: which trial was chosen, and by what."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from made_study import MadeStudy, make_config

from search import open_study
from search.record.study_record import StudyRecord, read_record
from search.review.outcome import show_outcome


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> StudyRecord:
    made = MadeStudy(tmp_path_factory.mktemp("outcome") / "study", make_config(trials=12))
    made.train(12)
    made.conclude()
    return read_record(made.close())


@pytest.mark.parametrize("repeats", ["none", "diverged", "made"])
def test_it_is_said_whether_the_repeats_chose_or_the_value_did(record, repeats, monkeypatch, capsys):
    """A trial of a better value may stand above the one that the repeats chose."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("search.review.outcome.export_of_recommended", lambda _: None)  # made heads have no files
    best, made = record.summary.best, record.summary.finalists
    heads = {"none": (), "diverged": (replace(made.heads[0], mean=None, sd=None),), "made": made.heads}[repeats]
    show_outcome(replace(record, summary=replace(record.summary, finalists=replace(made, heads=heads))))
    table = re.sub(r"[^\S\n]+", " ", capsys.readouterr().out)
    trial = f"trial {best.number}, {best.parameters:,} parameters"
    repeated = f"chosen by its repeats │ {trial}; {best.value:.4f} in the search │"
    alone = f"best on validation │ {best.value:.4f}, {trial} │"
    assert (repeated in table, alone in table) == (repeats == "made", repeats != "made")


def test_a_study_says_it_of_itself(record):
    best = record.summary.best
    said = f"trial {best.number}, validation accuracy {best.value:.4f} in the search"
    assert f"  chosen by its repeats: {said}\n" in repr(open_study(record.folder))
