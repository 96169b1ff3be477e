"""A table in a notebook that is drawn over and over, as ``rich.live.Live`` does in a terminal."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rich.table import Table


class NotebookTable:
    """One place in the output of the cell that runs. Rich's own needs ipywidgets, here and where it is looked at."""

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
