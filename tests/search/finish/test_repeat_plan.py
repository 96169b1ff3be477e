"""Finalists cost what the search is worth: their number, repeats and epochs follow from its trial-epochs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_study import MadeStudy, make_config
from optuna.trial import FrozenTrial

from heads.metrics.scoring import EpochRecord, Score
from search.finish.incidents import incidents
from search.finish.repeat_plan import RepeatPlan, describe_plan, plan_repeats
from search.record.results import FinalistCost, Finalists
from search.record.summary import summarise
from search.trials.notes import TrialNotes
from search.trials.ranking import is_article, ranking

EPOCHS = 40
OPEN = {"finalists": None, "repeats": None}


class Searched:
    """A study of which every trial's value, best epoch and epochs are as told."""

    def __init__(self, folder: Path, **changes) -> None:
        self.made = MadeStudy(folder, make_config(**{**OPEN, "trials": 1000, "epochs": EPOCHS, **changes}))

    def trial(self, value: float, best_epoch: int = EPOCHS, epochs: int = EPOCHS) -> None:
        asked = self.made.book.ask()
        TrialNotes.write(asked.trial, learning_rates=[1e-3] * best_epoch)
        record = EpochRecord(best_epoch, 0.1, Score(1 - value, value, value), 1e-3)
        self.made.book.complete(asked, record, epochs=epochs, parameters=1)

    def plan(self, **changes) -> RepeatPlan:
        return plan_repeats(self.made.opened.study, self.made.config.model_copy(update=changes))


@pytest.fixture
def searched(tmp_path):
    made = Searched(tmp_path / "study")
    yield made
    made.made.close()


def fill(searched: Searched, trial_epochs: int, *, article: float = 0.1, best_epoch: int = EPOCHS) -> None:
    """Lets trials take so many epochs together."""
    searched.trial(article, best_epoch)
    for number in range(trial_epochs // EPOCHS - 1):
        searched.trial(0.5 + number / 1000, best_epoch)


@pytest.mark.parametrize(
    ("heads_and_runs", "searched_epochs"),
    [((6, 5), 4800), ((6, 4), 3840), ((5, 3), 2400), ((4, 2), 1280), ((3, 2), 960)],
)
def test_repeats_are_within_a_quarter_of_the_search(searched, heads_and_runs, searched_epochs):
    fill(searched, searched_epochs)
    plan = searched.plan()
    assert (len(plan.trials), plan.runs) == heads_and_runs
    assert plan.trial_epochs * 4 == searched_epochs == plan.searched
    assert plan.fits


def test_the_best_head_and_the_articles_are_compared_however_small_a_study_is(searched):
    fill(searched, 8 * EPOCHS)
    plan = searched.plan()
    assert (len(plan.trials), plan.runs, plan.trial_epochs, plan.fits) == (2, 2, 4 * EPOCHS, False)
    assert [is_article(trial) for trial in plan.trials] == [False, True]
    assert describe_plan(plan.record) == (
        "2 heads, 2 runs each of at most 40 epochs: 160 trial-epochs, the least that compares heads; the search had"
        " 320."
    )


def test_a_study_of_the_articles_head_alone_compares_nothing(searched):
    searched.trial(0.5)
    assert describe_plan(searched.plan().record).startswith("1 head, ")
    assert "trial-epochs, of the only head that there is; the search had 40." in describe_plan(searched.plan().record)


def test_where_the_articles_head_is_the_best_it_is_compared_with_the_next(searched):
    fill(searched, 8 * EPOCHS, article=0.99)
    plan = searched.plan()
    assert [is_article(trial) for trial in plan.trials] == [True, False]
    assert plan.runs == 2


def test_runs_take_the_epochs_that_the_trials_needed(searched):
    searched.trial(0.1, 12)
    for number in range(80):
        searched.trial(0.5 + number / 1000, best_epoch=4 + number % 7)
    plan = searched.plan()
    assert plan.epochs == [6, 5, 4, 10, 9, 12]
    assert plan.trial_epochs == plan.runs * sum(plan.epochs)
    assert plan.record.epochs == 12


def test_runs_of_several_folds_are_as_many_repeats(searched):
    fill(searched, 1920)
    assert (searched.plan(folds=2).runs, len(searched.plan(folds=2).trials)) == (2, 6)
    assert (searched.plan(folds=5, repeats=11).runs, searched.plan(folds=5, repeats=5).runs) == (3, 1)


@pytest.mark.parametrize(
    ("heads_and_runs", "searched_epochs"),
    [((6, 2), 4800), ((6, 2), 1920), ((5, 2), 1600), ((4, 2), 1280), ((6, 1), 960), ((5, 1), 800), ((2, 1), 320)],
)
def test_of_five_folds_a_second_run_is_worth_more_than_the_last_two_heads(searched, heads_and_runs, searched_epochs):
    fill(searched, searched_epochs)
    plan = searched.plan(folds=5)
    assert (len(plan.trials), plan.runs) == heads_and_runs
    assert plan.fits
    assert len(searched.plan(folds=5, finalists=4).trials) == 5


def test_what_is_given_is_obeyed(searched):
    fill(searched, 960, best_epoch=5)
    asked = searched.plan(finalists=7, repeats=6)
    assert (len(asked.trials), asked.runs, asked.epochs, asked.chosen) == (8, 6, [5] * 8, False)
    assert describe_plan(asked.record).endswith("240 trial-epochs; so many heads and runs were asked for.")
    assert len(searched.plan(finalists=3).trials) == 4
    assert searched.plan(finalists=3).fits
    assert searched.plan(repeats=9).runs == 9
    assert searched.plan(repeats=1).runs == 1


def test_trials_that_were_interrupted_do_not_count_and_the_same_record_gives_the_same_plan(searched):
    fill(searched, 960)
    before = searched.plan().record
    asked = searched.made.book.ask()
    searched.made.book.fail(asked, "interrupted", epochs=1000)
    assert searched.plan().record == before
    searched.made.book.fail(searched.made.book.ask(), "diverged", epochs=1000)
    assert searched.plan().searched == 1960


def test_a_plan_is_told_in_the_summary_and_one_that_takes_more_is_pointed_out(searched):
    fill(searched, 8 * EPOCHS)
    study, config = searched.made.opened.study, searched.made.config
    finalists = Finalists(cost=FinalistCost(trial_epochs=1, seconds=1.0), heads=(), plan=searched.plan().record)
    assert Finalists.from_dict(finalists.to_dict()) == finalists
    summary = replace(summarise(study, config), finalists=finalists)
    assert [line for line in incidents(study, summary, "accuracy") if "finalists: 2 heads" in line]
    as_asked = replace(finalists, plan=searched.plan(finalists=3, repeats=3).record)
    summary = replace(summary, finalists=as_asked)
    assert not [line for line in incidents(study, summary, "accuracy") if "finalists" in line]


FEW = {"conv_width": 256, "pooling": "average", "activation": ["relu", "gelu"], "batch_norm": [True, False]}
"""Four heads, none of them the article's."""
WITH_THE_ARTICLES = {"conv_width": 64, "pooling": "flatten", "activation": ["relu", "gelu"]}
"""Two heads, one of them the article's."""


@pytest.fixture
def of_few(request, tmp_path):
    made = Searched(tmp_path / "study", space=request.param)
    fill(made, 30 * EPOCHS)
    yield made
    made.made.close()


def alike(searched: Searched, trial: FrozenTrial) -> list[FrozenTrial]:
    spec = TrialNotes.of(trial).spec
    return [one for one in ranking(searched.made.opened.study) if TrialNotes.of(one).spec == spec]


@pytest.mark.parametrize("of_few", [FEW], indirect=True)
def test_a_head_that_was_drawn_several_times_is_compared_once_by_its_best_trial(of_few):
    plan = of_few.plan(finalists=5, repeats=2)
    assert len({TrialNotes.of(trial).spec for trial in plan.trials}) == len(plan.trials) == 5
    assert plan.trial_epochs == 5 * 2 * EPOCHS
    assert [trial.number for trial in plan.trials] == [alike(of_few, trial)[0].number for trial in plan.trials]
    assert is_article(plan.trials[-1])
    assert of_few.plan(finalists=2).trials == [*plan.trials[:2], plan.trials[-1]]


@pytest.mark.parametrize("of_few", [WITH_THE_ARTICLES], indirect=True)
def test_the_articles_head_drawn_again_is_there_once_by_its_own_trial(of_few):
    first, *_ = ranking(of_few.made.opened.study)
    plan = of_few.plan()
    assert len({TrialNotes.of(trial).spec for trial in plan.trials}) == len(plan.trials) == 2
    assert TrialNotes.of(plan.trials[0]).spec == TrialNotes.of(first).spec
    (article,) = [trial for trial in plan.trials if is_article(trial)]
    assert len(alike(of_few, article)) > 1


UNITS = {"dense_layers": 0, "dense_units": [16, 32, 64, 128], "optimizer": ["adam", "adamw"]}
"""Eight ways to draw the article's head."""


@pytest.mark.parametrize("of_few", [UNITS], indirect=True)
def test_the_same_head_by_another_name_is_no_other_finalist(of_few):
    assert len({TrialNotes.of(trial).spec for trial in ranking(of_few.made.opened.study)}) > 1
    (only,) = of_few.plan().trials
    assert is_article(only)
