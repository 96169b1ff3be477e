"""The book of trials: each asked trial is told once, and an interrupted study continues as if it had not been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_study import SPACE as HEADS
from made_study import make_config
from optuna.trial import TrialState

from heads.metrics.scoring import EpochRecord, Score
from heads.model.spec import HeadSpec
from search.record.opened_study import OpenedStudy
from search.record.storage import load_study, open_record
from search.setup.config import StudyConfig
from search.setup.space import ARTICLE, Space
from search.trials.ask_tell import Asked, Book, Planned
from search.trials.ranking import article_trial, is_counted, ranking

EPOCHS = 8


def solo_config(*, trials: int, sampler: str = "tpe", space: Space = HEADS, **changes: Any) -> StudyConfig:
    alone = {"name": "s", "engine": "solo", "pages": None, "dtype": None, "epochs": EPOCHS}
    return make_config(**alone, trials=trials, sampler=sampler, space=space.to_dict(), **changes)


def record_of(asked: Asked, epoch: int) -> EpochRecord:
    """A made-up curve that depends on the head alone."""
    quality = asked.seed % 1000 / 1000
    accuracy = round(quality * (1 - 0.5**epoch), 6)
    return EpochRecord(epoch, 1 - accuracy, Score(1 - accuracy, accuracy, accuracy), asked.spec.learning_rate)


class KilledError(Exception):
    """Stands for the end of the process."""


def run(book: Book, opened: OpenedStudy, *, steps: int | None = None) -> None:
    """Trains trials one at a time; after ``steps`` epochs the process 'ends', with what was flushed on disk."""
    left = steps if steps is not None else 10**9
    while (asked := book.ask()) is not None:
        opened.flush()
        pruned = False
        for epoch in range(1, EPOCHS + 1):
            if left == 0:
                raise KilledError
            left -= 1
            book.report(asked, record_of(asked, epoch))
            opened.flush()
            pruned = epoch < EPOCHS and book.should_prune(asked)
            if pruned:
                book.prune(asked, epochs=epoch)
                break
        if asked.ordinal % 7 == 5 and not pruned:
            book.fail(asked, "diverged", epochs=EPOCHS)
        elif not pruned:
            book.complete(asked, record_of(asked, EPOCHS), epochs=EPOCHS, parameters=1)
        opened.flush()


def table(folder: Path) -> list[tuple]:
    trials = [t for t in load_study(folder, "s", None).get_trials() if is_counted(t)]
    trials.sort(key=lambda t: t.user_attrs["ordinal"])
    return [
        (t.user_attrs["ordinal"], t.state, t.value, t.params, t.intermediate_values, t.user_attrs["spec"])
        for t in trials
    ]


def run_through(folder: Path, config: StudyConfig, kills: list[int]) -> list[tuple]:
    folder.mkdir()
    for number, steps in enumerate([*kills, None]):
        opened = open_record(folder, "s", None, direction="maximize", resume=number > 0)
        try:
            run(Book(opened.study, config, HEADS), opened, steps=steps)
        except KilledError:
            opened.study._storage._backend._file.close()  # as the kernel would; what was not flushed is lost
        else:
            opened.close()
    return table(folder)


@pytest.mark.slow
@given(kills=st.lists(st.integers(0, 40), max_size=4), sampler=st.sampled_from(["tpe", "bohb", "random", "qmc"]))
def test_killed_and_resumed_the_table_is_that_of_an_undisturbed_study(tmp_path_factory, kills, sampler):
    folder = tmp_path_factory.mktemp("book")
    config = solo_config(trials=18, sampler=sampler)
    undisturbed = run_through(folder / "plain", config, [])
    assert len(undisturbed) == 18
    assert [row[0] for row in undisturbed] == list(range(18))
    assert run_through(folder / "killed", config, kills) == undisturbed


@pytest.mark.parametrize("pruner", ["hyperband", "median"])
def test_killed_and_resumed_optunas_pruners_judge_as_in_an_undisturbed_study(tmp_path, pruner):
    """Trials that are run again have other numbers, and those that were interrupted are no rivals."""
    config = solo_config(trials=14, pruner=pruner)
    undisturbed = run_through(tmp_path / "plain", config, [])
    assert {row[1] for row in undisturbed} >= {TrialState.COMPLETE, TrialState.PRUNED}
    assert run_through(tmp_path / "killed", config, [11, 5, 9]) == undisturbed


def test_every_trial_is_told_and_none_is_left_running(tmp_path):
    rows = run_through(tmp_path / "s", solo_config(trials=20), [3, 9, 1])
    trials = load_study(tmp_path / "s", "s", None).get_trials()
    assert all(trial.state.is_finished() for trial in trials)
    assert len(rows) == 20
    interrupted = [t for t in trials if t.user_attrs.get("failure") == "interrupted"]
    assert len(interrupted) == 3
    assert {t.state for t in interrupted} == {TrialState.FAIL}
    assert {row[1] for row in rows} == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


@pytest.mark.parametrize(("stopped_at", "sampler"), [(0, "random"), (3, "random"), (3, "qmc")])
def test_a_trial_that_was_stopped_while_it_was_drawn_leaves_its_place_to_the_next(
    tmp_path, monkeypatch, stopped_at, sampler
):
    """Somebody's own function may take its time there."""
    config = solo_config(trials=6, sampler=sampler)
    undisturbed = run_through(tmp_path / "plain", config, [])
    (tmp_path / "s").mkdir()
    opened = open_record(tmp_path / "s", "s", None, direction="maximize", resume=False)
    real, drawn = Space.suggest, []

    def suggest(space: Space, trial: optuna.Trial) -> HeadSpec:
        drawn.append(real(space, trial))
        if len(drawn) > stopped_at:
            raise KeyboardInterrupt
        return drawn[-1]

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Space, "suggest", suggest)
        run(Book(opened.study, config, HEADS), opened)
    opened.close()  # which keeps it: it has its place, and no head
    opened = open_record(tmp_path / "s", "s", None, direction="maximize", resume=True)
    run(Book(opened.study, config, HEADS), opened)
    opened.close()
    assert table(tmp_path / "s") == undisturbed


def test_the_articles_head_is_first_is_never_pruned_and_is_itself_in_any_space(tmp_path):
    space = Space.from_dict({"conv_width": [16, 32], "dropout": [0.0, 0.1]}, "here")  # cannot express it
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    book = Book(opened.study, solo_config(trials=12, space=space), space)
    first = book.ask()
    assert first is not None
    assert first.is_article
    assert first.spec == ARTICLE
    assert first.trial.params == {"conv_width": 32, "dropout": 0.1}  # the nearest of the space, not drawn ones
    others = [book.ask() for _ in range(8)]
    for asked in [first, *others]:
        accuracy = 0.1 if asked is first else 0.9
        book.report(asked, EpochRecord(1, 1.0, Score(1.0, accuracy, accuracy), 1e-3))
    assert not book.should_prune(first)
    opened.close()


def test_the_last_trial_that_may_complete_goes_on_however_weak_it_is(tmp_path):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    book = Book(opened.study, solo_config(trials=5), HEADS)
    article, *others, weakest = [book.ask() for _ in range(5)]
    for index, asked in enumerate((article, *others, weakest)):
        accuracy = 0.9 - index / 10
        book.report(asked, EpochRecord(1, 1.0, Score(1.0, accuracy, accuracy), 1e-3))
    book.fail(article, "diverged", epochs=1)
    assert book.should_prune(weakest)
    for asked in others:
        book.prune(asked, epochs=1)
    assert not book.should_prune(weakest)
    opened.close()


def test_a_trial_is_through_after_all_epochs_or_as_many_without_a_better_one_as_it_may_wait(tmp_path):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    config, best = solo_config(trials=1), EpochRecord(2, 1.0, Score(1.0, 0.5, 0.5), 1e-3)
    patient = Book(opened.study, config.model_copy(update={"patience": 3}), HEADS)
    asked = patient.ask()
    assert [patient.is_through(asked, epochs, best) for epochs in (2, 4, 5)] == [False, False, True]
    endless = Book(opened.study, config, HEADS)
    assert [endless.is_through(asked, epochs, best) for epochs in (5, EPOCHS - 1, EPOCHS)] == [False, False, True]
    opened.close()


def test_of_a_trial_whose_epochs_are_planned_the_last_one_counts_and_no_patience_ends_it(tmp_path):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    config = solo_config(trials=2).model_copy(update={"patience": 1})
    book = Book(opened.study, config, HEADS, planned=[Planned(ARTICLE, epochs=3), Planned(ARTICLE)])
    planned, usual = book.ask(), book.ask()
    best = EpochRecord(1, 1.0, Score(1.0, 0.5, 0.5), 1e-3)
    assert [book.is_through(planned, epochs, best) for epochs in (1, 2, 3)] == [False, False, True]
    assert [book.is_through(usual, epochs, best) for epochs in (1, 2)] == [False, True]
    assert (planned.last_counts, usual.last_counts) == (True, False)
    assert [book.epochs_left(asked, 2) for asked in (planned, usual)] == [1, EPOCHS - 2]
    assert [book.resumed_trial(asked.number).epochs for asked in (planned, usual)] == [3, None]  # by a snapshot
    opened.close()


def test_run_again_the_articles_head_has_the_parameters_that_it_had(tmp_path):
    """What is switched off in it is drawn: from the place that comes next, which is another one by then."""
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    config = solo_config(trials=12)
    book = Book(opened.study, config, HEADS)
    first, *_ = [book.ask() for _ in range(4)]
    again = Book(opened.study, config, HEADS).ask()  # as after a kill without a snapshot
    assert (again.ordinal, again.spec) == (first.ordinal, first.spec)
    assert again.number != first.number
    assert again.trial.params == first.trial.params
    opened.close()


def test_ranking_is_by_accuracy_then_loss_then_number(tmp_path):
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    book = Book(opened.study, solo_config(trials=5), HEADS)
    scores = [(0.8, 0.5), (0.9, 0.6), (0.9, 0.4), (0.9, 0.6), (0.7, 0.1)]
    for accuracy, loss in scores:
        asked = book.ask()
        assert asked is not None
        book.complete(asked, EpochRecord(2, 0.1, Score(loss, accuracy, accuracy), 1e-3), epochs=3, parameters=1)
    assert book.ask() is None
    assert [trial.number for trial in ranking(opened.study)] == [2, 1, 3, 0, 4]
    article = article_trial(opened.study)
    assert article is not None
    assert article.number == 0
    opened.close()


def test_a_larger_study_goes_on_from_a_finished_one(tmp_path):
    small, large = solo_config(trials=6), solo_config(trials=14)
    assert len(run_through(tmp_path / "s", small, [])) == 6
    opened = open_record(tmp_path / "s", "s", None, direction="maximize", resume=True)
    run(Book(opened.study, large, HEADS), opened)
    opened.close()
    assert table(tmp_path / "s") == run_through(tmp_path / "t", large, [])


def test_a_quasi_random_study_says_nothing_of_conditions(tmp_path, caplog, request):
    """Of several stores the article's heads are asked for before one has ended, which Optuna takes for conditions."""
    optuna.logging.enable_propagation()
    request.addfinalizer(optuna.logging.disable_propagation)
    opened = open_record(tmp_path, "s", None, direction="maximize", resume=False)
    request.addfinalizer(opened.close)
    space = replace(HEADS, stores=("one", "other"))
    book = Book(opened.study, solo_config(trials=12, sampler="qmc", space=space), space)
    asked = [book.ask() for _ in range(8)]
    assert len({(one.store, one.spec) for one in asked}) == 8
    assert not caplog.records
