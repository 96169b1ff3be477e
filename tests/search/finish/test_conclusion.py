"""The end of a study, whole: on a tiny store, with repeats and refits, twice; and how it can fail.

Banks are made ones: with real ones it ends in ``tests/search/test_searched_study.py``, and here where it is slow.
"""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from ended_study import end_study
from killed_study import made_searches
from made_bank import read_head

from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import write_json
from search.finish.checkpoints import TopCheckpoints
from search.finish.choice import Choice
from search.finish.conclusion import finish_study
from search.finish.export_choice import what_leaves
from search.finish.repeats import Finalist
from search.record.head_files import kept_numbers, path_of, refit_path_of
from search.record.results import BankFigures
from search.record.study_record import Progress, StudyRecord, read_record
from search.record.summary import Summary, read_summary
from search.review.report import make_report
from search.setup.audit import AUDIT_FILE
from search.setup.export_options import ExportOptions
from search.training.stages import Stage
from search.trials.ranking import finalists_of, ranking

BANK = BankFigures(
    pages=4,
    dtype="float32",
    compilations=2,
    heads_at_once=2.5,
    page_occupancy=0.9,
    trial_epochs_per_second=8.0,
    gflops=1.5,
    training_seconds=3.0,
    bookkeeping_seconds=0.1,
    bookkeeping_share=0.03,
)


AUDIT = {
    "identity": "ab" * 8,
    "rows": {"train": 48, "validation": 24, "test": 24},
    "patients": {"train": 16, "validation": 8, "test": 8},
    "patients_shared": 0,
    "near_identical": 2,
    "truncated": False,
    "pairs": [],
}


def finish_twice(place):
    """A study finished twice: what there is to look at, and both summaries."""
    ended = end_study(place)
    write_json(ended.folder / AUDIT_FILE, AUDIT)
    first = finish_study(ended.checkpoints, snapshot_every=1e9)
    text = (ended.folder / "summary.json").read_text()
    second = finish_study(ended.checkpoints, snapshot_every=1e9)
    return ended, (first, text), (second, (ended.folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with made_searches():
        return finish_twice(tmp_path_factory.mktemp("finished"))


def test_run_twice_it_comes_to_the_same(finished):
    _, (first, text), (second, again) = finished
    assert second == first
    assert again == text


@pytest.mark.slow
def test_run_twice_in_real_banks_it_comes_to_the_same(tmp_path):
    _, first, second = finish_twice(tmp_path)
    assert second == first


def test_what_it_returns_is_what_it_wrote(finished):
    ended, (first, text), _ = finished
    assert read_summary(ended.folder) == first
    assert Summary.from_dict(json.loads(text)) == first


def test_the_best_on_the_mean_is_chosen_and_trained_on_all_rows(finished):
    ended, (summary, _), _ = finished
    finalists = summary.finalists.heads
    assert {one.trial for one in finalists} == {trial.number for trial in finalists_of(ended.study, 2)}
    assert summary.best.number == finalists[0].trial == summary.refit.trial == summary.test.trial
    assert summary.refit.rows == len(ended.data.train.rows) + len(ended.data.validation.rows)
    assert summary.refit.parts == ("train", "validation")
    head = read_head(refit_path_of(ended.folder, summary.best.number))
    assert head.metadata.refit.mean == finalists[0].mean
    assert head.metadata.temperature == summary.calibration.temperature
    assert all(refit_path_of(ended.folder, one.trial).is_file() for one in finalists)


def test_the_test_rows_are_used_once(finished):
    ended, (summary, _), (again, _) = finished
    assert summary.test.uses == again.test.uses == 1
    assert summary.test.rows == len(ended.data.test.rows)
    assert f"{summary.test.rows} test images" in summary.verdict
    assert summary.audit.near_identical == 2
    assert summary.bank is None
    assert summary.one_at_a_time is None


def test_the_record_holds_it_until_the_search_goes_on(finished):
    ended, (summary, _), _ = finished
    record = read_record(ended.folder)
    assert record.summary == record.concluded == summary
    added = end_of(record.summary)
    gone_on = replace(added, trials=9).merged_with(summary, still_chosen=False)
    assert (gone_on.finalists, gone_on.ensemble, gone_on.calibration) == (None, None, None)
    assert gone_on.test == replace(summary.test, recommended=None)  # the same head is still the best
    another = replace(added, best=replace(summary.best, number=99)).merged_with(summary, still_chosen=False)
    assert (another.test, another.verdict, another.refit) == (None, None, None)
    assert another.audit == summary.audit


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_later_end_that_is_killed_leaves_no_figures_beside_heads_that_are_not_theirs(tmp_path):
    with made_searches():
        ended = end_study(tmp_path)
        first = finish_study(ended.checkpoints, snapshot_every=1e9)
        longer = ended.config.model_copy(update={"repeats": 3})
        longer.write(ended.folder)
        checkpoints = TopCheckpoints(replace(ended.searched, config=longer))

        def killed_at(stage: Stage) -> StudyRecord:
            def on_stage(reached: Stage) -> None:
                if reached is stage:
                    raise Killed

            with pytest.raises(Killed):
                finish_study(checkpoints, snapshot_every=1e9, on_stage=on_stage)
            return read_record(ended.folder)

        before = killed_at(Stage.CALIBRATION)  # the heads are still those of the first end
        assert (before.progress, before.is_concluded, before.summary) == (Progress.FINISHED, True, first)
        after = killed_at(Stage.TEST)
        assert (after.progress, after.is_concluded, after.lacks_its_end) == (Progress.STOPPED, False, True)
        assert (after.summary.test, after.summary.refit, after.summary.verdict, after.finalists) == (
            None,
            None,
            None,
            (),
        )
        assert what_leaves(after, ExportOptions()).caveat.startswith("the search has not ended")
        assert make_report(after).count(first.verdict) == 0
        second = finish_study(checkpoints, snapshot_every=1e9)
    assert second.test.uses == 2
    assert read_record(ended.folder).summary == second
    assert "withdrawn" not in (ended.folder / "summary.json").read_text()


def end_of(summary: Summary) -> Summary:
    """What the trials alone say."""
    left = dict.fromkeys(("finalists", "ensemble", "refit", "calibration", "test", "verdict", "audit"))
    return replace(summary, **left)


def test_without_finalists_the_best_trials_own_head_leaves(tmp_path):
    ended = end_study(tmp_path, finalists=0)
    summary = finish_study(ended.checkpoints, snapshot_every=1e9)
    assert summary.best.number == ranking(ended.study)[0].number == summary.test.trial
    assert (summary.finalists, summary.refit, summary.ensemble) == (None, None, None)
    assert not list(ended.folder.glob("heads/refit-*"))
    assert summary.calibration is None  # its file holds no temperature
    assert summary.test.calibration.temperature is None
    assert summary.test.article.trial == summary.article.number
    assert summary.audit is None  # no audit.json lies there


def test_without_finalists_a_trials_lost_head_is_trained_again_and_that_is_said(tmp_path):
    with made_searches():
        ended = end_study(tmp_path, finalists=0)
        number = ranking(ended.study)[0].number
        path_of(ended.folder, number).unlink()
        summary = finish_study(ended.checkpoints, snapshot_every=1e9)
    assert summary.refit.trial == number
    assert f"heads/trial-{number}.hdf5: expected the head of trial {number}, found no file" in "\n".join(summary.notes)


def test_without_test_rows_that_is_what_it_says(tmp_path):
    ended = end_study(tmp_path, finalists=0, test_share=0.0)
    summary = finish_study(ended.checkpoints, snapshot_every=1e9)
    assert summary.test is None
    assert "no test rows" in summary.verdict
    record = read_record(ended.folder)
    assert record.summary.verdict == summary.verdict
    report = make_report(record)
    assert report.count(summary.verdict) == 2  # what was found, and what it is worth on new patients
    assert "at the end of the search" not in report


def test_with_a_banks_figures_stands_what_the_trials_would_have_taken_alone(tmp_path, monkeypatch):
    ended = end_study(tmp_path, finalists=0)
    asked = []
    monkeypatch.setattr("search.finish.conclusion.one_at_a_time", lambda *given: asked.append(given))
    summary = finish_study(ended.checkpoints, bank=lambda: BANK, snapshot_every=1e9)
    assert summary.bank == read_summary(ended.folder).bank == BANK
    assert asked == [(ended.study, ended.config, ended.study_data)]


def test_a_search_of_which_nothing_completed_has_no_end(tmp_path):
    ended = end_study(tmp_path, trials=0)
    asked = ended.made.book.ask
    ended.made.book.config = ended.config.model_copy(update={"trials": 1})
    ended.made.book.fail(asked(), "it diverged in epoch 1", epochs=1)
    with pytest.raises(BottleneckError, match=r"no trial completed \(it diverged in epoch 1\)"):
        finish_study(ended.checkpoints, snapshot_every=1e9)
    assert not (ended.folder / "summary.json").exists()


def test_who_was_replaced_while_it_slept_writes_no_summary(tmp_path):
    ended, told = end_study(tmp_path, finalists=0), []

    def check() -> None:
        if told[-1:] == [Stage.TEST]:
            raise BottleneckError("taken over")

    with pytest.raises(BottleneckError, match="taken over"):
        finish_study(ended.checkpoints, snapshot_every=1e9, crew=SimpleNamespace(check=check), on_stage=told.append)
    assert not (ended.folder / "summary.json").exists()


def test_a_damaged_summary_of_an_earlier_end_is_named_before_anything_is_trained(tmp_path):
    ended = end_study(tmp_path)
    (ended.folder / "summary.json").write_text('{"name": 3}')
    with pytest.raises(InputError, match=r"summary\.json: name: expected .*string"):
        finish_study(ended.checkpoints, snapshot_every=1e9)
    assert not (ended.folder / "finalists").exists()
    assert kept_numbers(ended.folder)


def finalist(trial: int, *, is_article: bool = False, value: float | None = 0.5) -> Finalist:
    nothing = {"head": None, "losses": (), "epochs": 1, "rates": ()}
    return Finalist(trial=trial, ordinal=trial, is_article=is_article, values=(value,), probabilities=(), **nothing)


def test_the_articles_head_is_a_member_only_where_it_won():
    article, diverged = finalist(0, is_article=True), finalist(5, value=None)

    def members(*finalists: Finalist) -> list[int]:
        return Choice(finalists[0].trial, finalists, None).members

    assert members(finalist(3), article, finalist(5)) == [3, 5]
    assert members(article, finalist(3)) == [0, 3]
    assert members(finalist(3), diverged) == [3]
    assert members(diverged, article) == [0]
