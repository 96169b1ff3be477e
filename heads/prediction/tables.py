"""Predictions as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table

from features.runtime.text import printable
from heads.prediction.prediction import Prediction

_FOR_NAMES = 28
"""Columns that the names of image and class have at least."""
_DIGITS, _RULE = len("0.1234"), len(" | ")
_RUNNERS_UP = 2
"""Classes that are shown beside the called one, where not all are."""


class PredictionTable:
    """A column for each class; where they would not fit beside the images' names, the likeliest of each image.

    Rich draws it. Half a millisecond and 40 KB a row, however, are minutes and gigabytes for a large store: where no
    cell has to be folded, as in a file, rows are written into the frame that Rich draws of one.
    """

    def __init__(self, predictions: Sequence[Prediction], classes: Sequence[str], width: int) -> None:
        """Prepares.

        Args:
            predictions: Of each image.
            classes: In label order.
            width: Of the reader's screen or page, in columns.
        """
        self._predictions = predictions
        self._classes = [printable(name) for name in classes]
        taken = sum(max(len(name), _DIGITS) + _RULE for name in self._classes)
        self._every = taken <= width - _FOR_NAMES
        self._reasons = any(prediction.reason for prediction in predictions)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws the table, as Rich asks for it."""
        table, rows = self._empty(), list(self._rows())
        names = [str(column.header) for column in table.columns]
        widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
        if not rows or sum(widths) + _RULE * len(widths) + 1 > options.max_width:
            for row in rows:
                table.add_row(*row)
            yield table
            return
        for column, width in zip(table.columns, widths, strict=True):
            column.width = width
        table.add_row(*("" for _ in widths))
        top, names_of, rule, empty, *below = console.render_lines(table, options, pad=False)
        edge = empty[0].text
        for line in (top, names_of, rule):
            yield from (*line, Segment.line())
        for row in rows:
            padded = map(_padded, row, widths, (column.justify for column in table.columns))
            yield Segment(f"{edge} {f' {edge} '.join(padded)} {edge}\n")
        for line in below:
            yield from (*line, Segment.line())

    def _empty(self) -> Table:
        table = Table(caption=None if self._every else "the likeliest classes: --json has all", caption_justify="left")
        table.add_column("image", overflow="fold")
        table.add_column("class", overflow="fold")
        for name in self._classes if self._every else ("probability", "then"):
            table.add_column(name, justify="right" if name != "then" else "left", overflow="fold")
        if self._reasons:
            table.add_column("why not", overflow="fold")
        return table

    def _rows(self) -> Iterator[list[str]]:
        for prediction in self._predictions:
            numbers = self._all_of(prediction) if self._every else _likeliest(prediction)
            reason = [printable(prediction.reason)] if self._reasons else []
            yield [printable(prediction.image), printable(prediction.label or "-"), *numbers, *reason]

    def _all_of(self, prediction: Prediction) -> list[str]:
        return [f"{share:.4f}" for share in (prediction.probabilities or {}).values()] or ["-"] * len(self._classes)


def _padded(cell: str, width: int, justify: str) -> str:
    blank = " " * (width - cell_len(cell))
    return blank + cell if justify == "right" else cell + blank


def _likeliest(prediction: Prediction) -> list[str]:
    """The probability of the called class, and the next classes with theirs."""
    if not prediction.shares:
        return ["-", "-"]
    names, values = prediction.shares
    ranked = np.argsort(-values, kind="stable")[: 1 + _RUNNERS_UP]  # stable: as argmax has it
    first, *others = ((names[place], float(values[place])) for place in ranked)
    return [f"{first[1]:.4f}", ", ".join(f"{printable(name)} {share:.4f}" for name, share in others)]
