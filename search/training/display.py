"""The live display of a search: how far it is, what it found, how fast it goes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import optuna
from optuna.trial import TrialState
from rich.live import Live
from rich.table import Table

from features.runtime.command import console, say
from features.runtime.notebook import NotebookTable
from features.runtime.text import counted, duration
from search.setup.config import StudyConfig
from search.trials.notes import TrialNotes
from search.trials.ranking import article_trial, is_counted, ranking

REDRAW_EVERY = 0.25
"""Seconds: counting trials and ranking them must not slow epochs of 50 ms."""
_OF_A_KERNEL = "JPY_PARENT_PID"
"""The variable by which a notebook's kernel, and what is called from it, knows who started it."""


class Display:
    """A table that is redrawn in a terminal or a notebook; elsewhere (a log, a pipe) a line for each finished trial."""

    def __init__(
        self,
        study: optuna.Study,
        config: StudyConfig,
        *,
        what: str = "trial",
        with_article: bool = True,
        epochs_left: int | None = None,
    ) -> None:
        """Counts what has ended before.

        Args:
            study: Optuna's study.
            config: What was resolved.
            what: What its trials are called.
            with_article: Whether its first trial is the article's head.
            epochs_left: Those of all trials together that are not yet trained, where that is known: trials that all
                run at once end late and together, so that their number says little of the time left.
        """
        self.study = study
        self.config = config
        self.what = what
        self._with_article = with_article
        self._epochs_left = epochs_left
        self._live = _live()
        self._begun = time.monotonic()
        self._epochs = 0
        self._drawn = 0.0
        self.detail: Callable[[], str] | None = None
        self._before = sum(is_counted(t) for t in study.get_trials(deepcopy=False))

    def epoch(self, trained: int = 1) -> None:
        """An epoch of ``trained`` heads has ended."""
        self._epochs += trained
        now = time.monotonic()
        if self._live and now - self._drawn >= REDRAW_EVERY:
            self._drawn = now
            self._live.update(self._table())

    def finished(self, *numbers: int) -> None:
        """Some trials have been told."""
        if self._live or not numbers:
            return
        trials, (done, left) = self.study.get_trials(deepcopy=False), self._progress()
        so_far = f"{done} of {self.config.trials} done" + (f", about {duration(left)} left" if left is not None else "")
        for number in numbers:
            trial = trials[number]
            notes = TrialNotes.of(trial)
            value = "" if trial.value is None else f" {trial.value:.4f}"
            reason = "" if notes.failure is None else f" ({notes.failure})"
            state = f"{trial.state.name.lower()}{value} after {counted(notes.epochs, 'epoch')}{reason}"
            say(f"{self.what} {number}: {state}; {so_far}")

    def _progress(self) -> tuple[int, float | None]:
        """Trials that have finished, and seconds left at the rate of this run."""
        done = sum(is_counted(t) for t in self.study.get_trials(deepcopy=False))
        fresh, left = done - self._before, self.config.trials - done
        if self._epochs_left is not None:
            fresh, left = self._epochs, self._epochs_left - self._epochs
        elapsed = time.monotonic() - self._begun
        # with fewer trials than had begun, those go on all the same
        return done, max(0, left) * elapsed / fresh if fresh else None

    def _table(self) -> Table:
        trials = self.study.get_trials(deepcopy=False)
        done, left = self._progress()
        best = next(iter(ranking(self.study)), None)
        table = Table(show_header=False, box=None, padding=(0, 2))
        states = {state: sum(t.state == state for t in trials) for state in TrialState}
        table.add_row(
            f"{self.what}s",
            f"{done} of {self.config.trials} done, {states[TrialState.RUNNING]} running, "
            f"{states[TrialState.PRUNED]} pruned, {states[TrialState.FAIL]} failed",
        )
        found = f"{best.value:.4f} ({self.what} {best.number})" if best else "none yet"
        table.add_row("best", found + (self._article_in_words() if self._with_article else ""))
        elapsed = time.monotonic() - self._begun
        rest = f", about {duration(left)} left" if left is not None else ""
        table.add_row("rate", f"{self._epochs / elapsed:.2f} trial-epochs/s{rest}")
        if self.detail:
            table.add_row("bank", self.detail())
        return table

    def _article_in_words(self) -> str:
        article = article_trial(self.study)
        return f"; article's head {f'{article.value:.4f}' if article else 'not finished'}"

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()


def _live() -> Live | NotebookTable | None:
    """Where a table can be redrawn; None where it cannot, or nobody wants to see it."""
    if console.quiet:
        return None
    if console.is_jupyter:
        return NotebookTable()
    return Live(console=console, refresh_per_second=4, transient=True) if _moves_cursor() else None


def _moves_cursor() -> bool:
    """Whether several lines can be drawn over.

    They cannot in a log or a pipe, though it is to be coloured (``FORCE_COLOR``), nor below a notebook's cell, which
    gives a program that it calls (``!python -m search.run``) a terminal and shows every table beneath the last one.
    """
    return console.is_terminal and console.file.isatty() and _OF_A_KERNEL not in os.environ
