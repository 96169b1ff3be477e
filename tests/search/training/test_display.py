"""How a search shows how far it is: in a terminal, in a notebook, elsewhere."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from made_study import MadeStudy, make_config
from optuna.trial import TrialState
from rich.console import Console
from terminal import terminal

from search.training import display
from search.training.display import Display
from search.trials import ranking
from search.trials.ranking import is_counted


@pytest.fixture
def made(tmp_path):
    study = MadeStudy(tmp_path / "made", make_config())
    yield study
    study.close()


def shown(made: MadeStudy, console: Console, monkeypatch, *, more: int = 3) -> str:
    monkeypatch.setattr(display, "console", console)
    monkeypatch.setattr("features.runtime.command.console", console)
    monkeypatch.setattr(display, "REDRAW_EVERY", 0)
    with Display(made.opened.study, made.config) as screen:
        made.train(more)
        screen.epoch(2)
        screen.finished(2)
    return console.file.getvalue()


def test_in_a_log_it_is_a_line_a_trial(made, monkeypatch):
    text = shown(made, Console(file=io.StringIO(), width=200), monkeypatch)
    assert text.startswith("trial 2: complete 0.")
    assert len(text.splitlines()) == 1
    assert "3 of 12 done" in text


def test_however_many_end_at_once_the_study_is_looked_through_once(made, monkeypatch):
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr("features.runtime.command.console", console)
    monkeypatch.setattr(display, "console", console)
    with Display(made.opened.study, made.config) as screen:
        made.train(6)
        looked_at = []
        monkeypatch.setattr(display, "is_counted", lambda trial: looked_at.append(trial) or is_counted(trial))
        screen.finished(1, 2, 4)
        assert len(looked_at) == 6
        screen.finished()
    lines = console.file.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["trial 1", "trial 2", "trial 4"]
    assert all("6 of 12 done" in line for line in lines)


def test_a_table_ranks_each_trial_once_and_the_articles_beside_them(made, monkeypatch):
    scored, rank = [], ranking._rank
    monkeypatch.setattr(ranking, "_rank", lambda trial, **how: scored.append(trial.number) or rank(trial, **how))
    made.train(6)
    scored.clear()
    shown(made, terminal(monkeypatch), monkeypatch, more=0)
    completed = [trial.number for trial in made.opened.study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(scored) == sorted([*completed, 0])


def test_with_more_done_than_wanted_no_time_is_left(made, monkeypatch):
    made.config = made.config.model_copy(update={"trials": 2})
    assert "3 of 2 done, about 0" in shown(made, Console(file=io.StringIO(), width=200), monkeypatch)


def test_where_epochs_are_counted_the_time_left_follows_from_them(made, monkeypatch):
    clock = iter([100.0, 110.0, 130.0])
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr("features.runtime.command.console", console)
    monkeypatch.setattr(display, "console", console)
    made.train(3)
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    screen = Display(made.opened.study, made.config, epochs_left=40)
    screen.epoch(10)
    screen.finished(2)
    assert "3 of 12 done, about 90 s left" in console.file.getvalue()


def test_in_a_terminal_it_is_a_table(made, monkeypatch):
    text = shown(made, terminal(monkeypatch), monkeypatch)
    assert "3 of 12 done" in text
    assert f"article's head {made.opened.study.trials[0].value:.4f}" in text
    assert "trial 2: complete" not in text


def test_a_log_that_is_to_be_coloured_is_a_log(made, monkeypatch):
    console = Console(file=io.StringIO(), width=200, _environ={"FORCE_COLOR": "1"})
    assert console.is_terminal
    text = shown(made, console, monkeypatch)
    assert text.startswith("trial 2: complete 0.")
    assert "\x1b[1A" not in text


def test_a_program_that_a_notebook_calls_has_a_terminal_and_draws_nothing_over(made, monkeypatch):
    console = terminal(monkeypatch)
    monkeypatch.setenv("JPY_PARENT_PID", "7")
    text = shown(made, console, monkeypatch)
    assert text.startswith("trial 2: complete 0.")
    assert "\x1b[1A" not in text


def test_in_a_notebook_it_is_a_table_that_is_drawn_over_and_goes(made, monkeypatch):
    drawn = []
    fake = SimpleNamespace(
        HTML=lambda text: text,
        display=lambda what, *, display_id: drawn.append(what) or SimpleNamespace(update=drawn.append),
    )
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    assert shown(made, Console(file=io.StringIO(), force_jupyter=True), monkeypatch) == ""
    assert (drawn[0], drawn[-1], len(drawn)) == ("", "", 3)
    screen = Console(file=io.StringIO(), width=120)
    screen.print(drawn[1])
    assert "3 of 12 done" in screen.file.getvalue()


def test_who_wants_to_hear_nothing_hears_nothing(made, monkeypatch):
    assert shown(made, terminal(monkeypatch, quiet=True), monkeypatch) == ""
