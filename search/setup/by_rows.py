"""What follows from how many rows a study has, unless it is told: folds, rows in a batch, epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from features.rows.feed import steps_of
from features.runtime.errors import InputError
from features.runtime.options import option_name
from features.runtime.text import counted
from search.setup.classes import require_area
from search.setup.data import SearchData
from search.setup.left_open import (
    FEWEST_EPOCHS,
    FEWEST_IN_BATCH,
    FOLDS,
    MOST_EPOCHS,
    MOST_IN_BATCH,
    ONE_PART_FROM,
)
from search.setup.options import RunOptions
from search.setup.stores import StudyData

STEPS, STEPS_AN_EPOCH = 1000, 20
"""Steps that a head is to train, and steps of an epoch: with fewer it is the end of training that decides its worth."""


@dataclass(frozen=True)
class DecidedByRows:
    """A search with what its rows decide.

    Attributes:
        options: With everything filled in that was left to the rows.
        data: The rows, in these parts.
        remarks: What was decided, and why, in a line each.
    """

    options: RunOptions
    data: StudyData
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Steps:
    """How long a head that is not pruned trains.

    Attributes:
        batch_size: Rows in a batch, at most.
        epochs: How many.
        an_epoch: Steps of each.
    """

    batch_size: int
    epochs: int
    an_epoch: int


def decide_by_rows(options: RunOptions, load: Callable[[int], StudyData]) -> DecidedByRows:
    """Loads the data of a search, and fills in what was left to the rows.

    Args:
        options: Of the search; ``features`` is None for the demonstration.
        load: Loads its data, with so many folds.

    Raises:
        InputError: As ``load`` does.
    """
    data, remarks = _in_parts(options, load)
    rows, folds = len(data.first.train.rows), len(data.first.folds)
    steps = steps_for(rows, folds, batch_size=options.batch_size, epochs=options.epochs)
    filled_in = {"folds": folds, "batch_size": steps.batch_size, "epochs": steps.epochs}
    return DecidedByRows(options.model_copy(update=filled_in), data, (*remarks, *_in_words(steps, options, data.first)))


def folds_for(validation_rows: int) -> int:
    """Returns on how many folds heads are judged where one part would have so many rows; 0 for that part."""
    return FOLDS if validation_rows < ONE_PART_FROM else 0


def steps_for(rows: int, folds: int, *, batch_size: int | None = None, epochs: int | None = None) -> Steps:
    """Returns how long heads train that have so many rows.

    Args:
        rows: To train on; with folds, of all of them.
        folds: Of which a head sits out one; 0 for none.
        batch_size: As it is given; by default a twentieth of what a head trains on, within the article's 100 rows.
        epochs: As they are given; by default as many as make a thousand steps, or about the article's 50.
    """
    trained = rows * (folds - 1) // folds if folds else rows
    if batch_size is None:
        batch_size = min(MOST_IN_BATCH, max(FEWEST_IN_BATCH, trained // STEPS_AN_EPOCH // 4 * 4))
    an_epoch = steps_of(rows, folds, batch_size)
    if epochs is None:
        epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, -(-STEPS // an_epoch)))
    return Steps(batch_size, epochs, an_epoch)


def _in_words(steps: Steps, options: RunOptions, data: SearchData) -> Iterator[str]:
    """A line of what was left open of the steps, if anything was."""
    decided = {"batch_size": f"at most {steps.batch_size} in a batch", "epochs": f"{steps.epochs} epochs"}
    open_still = [words for name, words in decided.items() if getattr(options, name) is None]
    names = [option_name(name) for name in decided if getattr(options, name) is None]
    if open_still:
        of_which = f", a head {len(data.folds) - 1} in {len(data.folds)} of them" if data.folds else ""
        yield (
            f"{counted(len(data.train.rows), 'row')} to train on{of_which}: {' and '.join(open_still)}, for"
            f" {steps.an_epoch * steps.epochs:,} steps, {steps.an_epoch} an epoch; {' and '.join(names)}"
            f" say{'s' if len(names) == 1 else ''} otherwise"
        )


def _in_parts(options: RunOptions, load: Callable[[int], StudyData]) -> tuple[StudyData, tuple[str, ...]]:
    if options.folds is not None:
        return load(options.folds), ()
    try:
        data = load(0)
    except InputError as refusal:
        return _folded_instead(options, load, refusal)
    rows = len(data.first.validation.rows)
    folds = folds_for(rows)
    if not folds or _is_asked_for(options):
        return data, ()
    part = f"{counted(rows, 'row')}, of which one is {100 / rows:.1f} points"
    reason = _why_one_part(options, folds)
    if _is_given(options, data.first):
        instead = reason or f"--folds {folds} trains on them, too, and judges on all"
        return data, (f"validation as given has {part}; {instead}",)
    if not reason:
        try:
            told = f"--folds auto took {folds}: one validation part would have {part}; --folds 0 takes it"
            return _folded(options, load, folds), (told,)
        except InputError as error:
            reason = f"{folds} folds cannot be had: {error}"
    return data, (f"--folds auto took one validation part of {part}: {reason}",)


def _folded_instead(
    options: RunOptions, load: Callable[[int], StudyData], refusal: InputError
) -> tuple[StudyData, tuple[str, ...]]:
    """The data in folds where one validation part cannot be had: of a rare class, they take fewer images.

    Raises:
        InputError: The refusal of the one part, where there can be no folds either, or somebody asked for that part.
    """
    if _is_asked_for(options) or _why_one_part(options, FOLDS):
        raise refusal
    try:
        data = _folded(options, load, FOLDS)
    except InputError:
        raise refusal from None
    if not options.ignore_parts and "validation" in data.first.store.header.parts:
        raise refusal
    return data, (f"--folds auto took {FOLDS}: one validation part cannot be had: {refusal}",)


def _is_given(options: RunOptions, data: SearchData) -> bool:
    """Whether the store says which rows are to validate on."""
    parts = data.validation.store.header.parts
    return bool(parts) and not options.ignore_parts and parts[data.validation.rows[0]] == "validation"


def _is_asked_for(options: RunOptions) -> bool:
    """Whether options say one validation part, or how large it is to be."""
    return bool(options.validation) or "validation_fraction" in options.model_fields_set


def _why_one_part(options: RunOptions, folds: int) -> str:
    """Why a search has one validation part whatever its rows; '' where it may have folds."""
    if options.features is None:
        return f"the demonstration is to be quick; a search on a store like it takes {folds} folds"
    if options.head:
        return f"one at a time, heads would train {folds} times as long with --folds {folds}"
    return "--engine solo takes no folds" if options.engine == "solo" else ""


def _folded(options: RunOptions, load: Callable[[int], StudyData], folds: int) -> StudyData:
    """The data in folds that heads can be ranked on."""
    data = load(folds)
    if options.objective == "auc":
        require_area(data.first.judging)
    return data
