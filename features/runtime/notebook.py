"""What a terminal draws over and over, in a notebook: tables and progress bars, without ipywidgets.

Rich's own displays need ipywidgets, where the notebook runs and where it is looked at; IPython's can do without.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

from rich.progress import Progress, TaskID
from rich.table import Table

REDRAW_EVERY = 0.2
"""Seconds: a notebook keeps up with a few messages a second."""


class NotebookTable:
    """One place in the output of the cell that runs, for a table that changes."""

    def __init__(self) -> None:
        self._display: Any = import_module("IPython.display")
        self._handle: Any = None

    def start(self) -> None:
        """Takes the place."""
        self._handle = self._display.display(self._display.HTML(""), display_id=True)

    def update(self, table: Table) -> None:
        """Draws the table there."""
        self._handle.update(table)

    def stop(self) -> None:
        """Leaves the place empty, as a terminal is left."""
        self._handle.update(self._display.HTML(""))


class NotebookProgress(Progress):
    """``rich.progress.Progress`` that draws into a ``NotebookTable``; its last state stays."""

    def __init__(self, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, auto_refresh=False, **options)
        self._place: NotebookTable | None = None
        self._drawn = 0.0

    def start(self) -> None:
        """Begins to draw."""
        if self._place is None and not self.disable:
            self._place = NotebookTable()
            self._place.start()

    def stop(self) -> None:
        """Draws once more, and leaves it."""
        self.refresh()
        self._place = None

    def refresh(self) -> None:
        """Draws what there is to see."""
        if self._place is not None:
            self._drawn = time.monotonic()
            self._place.update(self.make_tasks_table(self.tasks))

    def update(self, task_id: TaskID, **fields: Any) -> None:
        """As in a terminal; drawn a few times a second."""
        super().update(task_id, **fields)
        self._redraw()

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """As in a terminal; drawn a few times a second."""
        super().advance(task_id, advance)
        self._redraw()

    def _redraw(self) -> None:
        if time.monotonic() - self._drawn >= REDRAW_EVERY:
            self.refresh()
