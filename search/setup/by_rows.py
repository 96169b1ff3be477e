"""What follows from how many rows a study has, unless it is told: whether heads are judged by folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from features.runtime.errors import InputError
from features.runtime.text import counted
from search.setup.classes import require_area
from search.setup.data import SearchData
from search.setup.options import RunOptions

FOLDS = 5
ONE_PART_FROM = 500
"""Validation rows from which one part tells heads apart: one row is a fifth of a point there."""


@dataclass(frozen=True)
class DecidedByRows:
    """A search with what its rows decide.

    Attributes:
        options: With everything filled in that was left to the rows.
        data: The rows, in these parts.
        remarks: What was decided, and why, in a line each.
    """

    options: RunOptions
    data: SearchData
    remarks: tuple[str, ...]


def decide_by_rows(options: RunOptions, load: Callable[[int], SearchData]) -> DecidedByRows:
    """Loads the data of a search, and fills in what was left to the rows.

    Args:
        options: Of the search; ``features`` is None for the demonstration.
        load: Loads its data, with so many folds.

    Raises:
        InputError: As ``load`` does.
    """
    data, remarks = _in_parts(options, load)
    return DecidedByRows(options.model_copy(update={"folds": len(data.folds)}), data, remarks)


def folds_for(validation_rows: int) -> int:
    """Returns on how many folds heads are judged where one part would have so many rows; 0 for that part."""
    return FOLDS if validation_rows < ONE_PART_FROM else 0


def _in_parts(options: RunOptions, load: Callable[[int], SearchData]) -> tuple[SearchData, tuple[str, ...]]:
    if options.folds is not None:
        return load(options.folds), ()
    data = load(0)
    rows = len(data.validation.rows)
    folds = folds_for(rows)
    if not folds or _is_told_apart(options, data):
        return data, ()
    part = f"{counted(rows, 'row')}, of which one is {100 / rows:.1f} points"
    reason = _why_one_part(options, folds)
    if not reason:
        try:
            told = f"--folds auto took {folds}: one validation part would have {part}; --folds 0 takes it"
            return _folded(options, load, folds), (told,)
        except InputError as error:
            reason = f"{folds} folds cannot be had: {error}"
    return data, (f"--folds auto took one validation part of {part}: {reason}",)


def _is_told_apart(options: RunOptions, data: SearchData) -> bool:
    """Whether somebody said which rows, or how many, are to validate on."""
    if options.validation or "validation_fraction" in options.model_fields_set:
        return True
    parts = data.validation.store.header.parts
    return bool(parts) and not options.ignore_parts and parts[data.validation.rows[0]] == "validation"


def _why_one_part(options: RunOptions, folds: int) -> str:
    """Why a search has one validation part whatever its rows; '' where it may have folds."""
    if options.features is None:
        return f"the demonstration is to be quick; a search on a store like it takes {folds} folds"
    if options.head:
        return f"one at a time, heads would train {folds} times as long with --folds {folds}"
    return "--engine solo takes no folds" if options.engine == "solo" else ""


def _folded(options: RunOptions, load: Callable[[int], SearchData], folds: int) -> SearchData:
    """The data in folds that heads can be ranked on."""
    data = load(folds)
    if options.objective == "auc":
        require_area(data.judging)
    return data
