"""What a head did on some rows, as tables for a terminal or a file of its width, and the confusion matrix as CSV."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table

from features.runtime.errors import InputError
from features.runtime.files import replacing
from features.runtime.text import decimal, listed, printable
from heads.metrics.classification import Metrics
from heads.metrics.excerpt import CLASS_COLUMNS, MOST_CLASSES, class_rows, confused_lines, worst_classes
from heads.metrics.patients import of_patients

_NAMED = 6
_FOR_NAMES = 12
"""Columns that the name of a class has at least, if it is as long: a longer one is folded."""
_SHORT = ("rows", "sens.", "spec.", "prec.", "AUC")
"""Headings where ``CLASS_COLUMNS`` would take the place of the names."""
_COLUMNS = ("true", "called", "rows")


def tables(metrics: Metrics, title: str, console: Console) -> Group:
    """Returns the tables: the whole, each class, and what was called what.

    The confusion matrix is shown where it fits into the console's width. Where it does not, the pairs that were
    confused most often are, with all other rows counted, so that the numbers add up to all rows.
    """
    return Group(_whole(metrics, title), _classes(metrics, console), _confusions(metrics, console))


def check_csv(path: Path) -> None:
    """Refuses a place where no file can be written, or where another file than such a table would be lost for it.

    Raises:
        InputError: Naming the path; nothing was computed or written.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        found = "a folder" if path.is_dir() else f"{path.parent}, no such folder"
        raise InputError("--confusion", expected="a file in a folder that exists", found=found)
    if path.exists() and not _is_confusion(path):
        expected = "a new file, or such a table to replace"
        raise InputError("--confusion", expected=expected, found=f"another file, {path}", hint="it stays as it is")


def write_csv(path: Path, metrics: Metrics) -> None:
    """Writes a line for each pair of classes that has rows: ``true,called,rows``; the numbers add up to all rows.

    Raises:
        BottleneckError: The file cannot be written.
    """
    with replacing(path, shared=True) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(_COLUMNS)
        lines.writerows((pair.true, pair.called, pair.rows) for pair in metrics.pairs)


def _is_confusion(path: Path) -> bool:
    """Whether a file is a table of this kind, perhaps saved again by an editor or a spreadsheet, or is empty."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.readline(100)
    except OSError:
        return False
    names = start.removeprefix(codecs.BOM_UTF8).replace(b";", b",").replace(b'"', b"").strip()
    return not start or names == ",".join(_COLUMNS).encode()


def _whole(metrics: Metrics, title: str) -> Table:
    table = Table(title=printable(title), show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    table.add_row("rows", f"{metrics.rows}{of_patients(metrics.patients, metrics.patients_unknown)}")
    if metrics.rows and metrics.absent:
        table.add_row("classes without rows", listed(map(printable, metrics.absent), _NAMED))
    interval = "" if metrics.accuracy_interval is None else " ({:.4f} to {:.4f})".format(*metrics.accuracy_interval)
    units = "rows" if metrics.patients in (None, metrics.patients_unknown) else "patients"
    table.add_row(f"accuracy (95 % interval, {units} as units)", decimal(metrics.accuracy) + interval)
    table.add_row("balanced accuracy", decimal(metrics.balanced_accuracy))
    table.add_row("loss in nats", decimal(metrics.loss))
    return table


def _classes(metrics: Metrics, console: Console) -> Table:
    """A line for each class; where names and numbers would not fit, with short headings, and at last without rules."""
    for headings, ruled in ((CLASS_COLUMNS, True), (_SHORT, True), (_SHORT, False)):
        table = _class_table(metrics, headings, ruled=ruled)
        name = table.columns[0]
        name.max_width = _FOR_NAMES
        fits = _fits(table, console)
        name.max_width = None
        if fits:
            break
    return table


def _class_table(metrics: Metrics, headings: Sequence[str], *, ruled: bool) -> Table:
    shown, others = worst_classes(metrics.per_class)
    table = Table(caption=f"{others}: --json has all" if others else None, caption_justify="left")
    if not ruled:
        table.box, table.padding, table.pad_edge = None, (0, 1, 0, 0), False
    table.add_column("class", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    for row in class_rows(shown):
        table.add_row(*row)
    return table


def _confusions(metrics: Metrics, console: Console) -> Table:
    if len(metrics.confusion) == len(metrics.per_class) <= MOST_CLASSES:
        matrix = _matrix(metrics)
        if _fits(matrix, console):
            return matrix
    return _pairs(metrics)


def _fits(table: Table, console: Console) -> bool:
    """Whether a console has room for a table with nothing in it folded."""
    unbounded = console.options.update(max_width=100 * console.width)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def _matrix(metrics: Metrics) -> Table:
    names = [printable(one.name) for one in metrics.per_class]
    table = Table("true \\ called")
    for name in names:
        table.add_column(name, justify="right")
    for name, counts in zip(names, metrics.confusion, strict=True):
        table.add_row(name, *map(str, counts))
    return table


def _pairs(metrics: Metrics) -> Table:
    right = sum(pair.rows for pair in metrics.pairs if pair.true == pair.called)
    table = Table(caption="all of them: --confusion FILE.csv, or --json", caption_justify="left")
    table.add_column("true", overflow="fold")
    table.add_column("called", overflow="fold")
    table.add_column("rows", justify="right", no_wrap=True)
    for true, called, rows in confused_lines(metrics.confused, rows=metrics.rows, right=right):
        table.add_row(printable(true), printable(called), rows)
    return table
