"""The note on a study that Optuna's dashboard shows: what was found so far, as Markdown."""

from __future__ import annotations

from features.runtime.text import printable
from search.record.study_record import StudyRecord
from search.review.stores import store_cells, store_head
from search.review.words import (
    END_TO_COME,
    cost_in_words,
    describe_head,
    mean_in_words,
    objective_in_words,
    validation_in_words,
)
from search.trials.notes import TrialNotes

_MARKUP = frozenset("&<>\"'|*_`~[]\\")
"""What Markdown, its tables and HTML take for more than a character."""


def note_on(record: StudyRecord) -> str:
    """Returns what the study found so far, as Markdown."""
    summary, config = record.summary, record.config
    drawn = ", ".join(name for name, one in config.space.items() if isinstance(one, (list, dict)))
    searched = _as_text(config.head or drawn)
    state = f"{record.progress}; {END_TO_COME}" if record.lacks_its_end else record.progress
    lines = [f"{summary.trials} of {config.trials} trials, {state}.", ""]
    lines += [f"Searched: {searched}; by {validation_in_words(config.objective)}.", ""]
    if record.article is not None:
        lines += [f"The article's head: {record.article.value:.4f} (trial {record.article.number}).", ""]
    if summary.test and summary.verdict:
        lines += [summary.verdict, ""]
    if summary.best and summary.best.store:
        lines += [f"The best head takes the features of {_as_text(summary.best.store)}.", ""]
    if using := cost_in_words(summary, summary.best):
        lines += [f"An image with it: {using}.", ""]
    means = {one.trial: mean_in_words(config.objective, one) for one in record.finalists}
    beside = "".join(f" {name} |" for name in store_head(record))
    if record.ranked:
        lines += [
            f"| trial | {objective_in_words(config.objective)} | repeated | parameters |{beside} head |",
            f"| ---: | ---: | ---: | ---: |{' --- | ---: |' if beside else ''} --- |",
        ]
    for trial in record.ranked[:5]:
        notes, mean = TrialNotes.of(trial), means.get(trial.number, "-")
        size, head = f"{notes.parameters:,}", _as_text(describe_head(notes.head))
        cells = "".join(f" {_as_text(cell)} |" for cell in store_cells(record, trial))
        lines.append(f"| {trial.number} | {trial.value:.4f} | {mean} | {size} |{cells} {head} |")
    return "\n".join([*lines, "", "Kept heads, curves and confusion matrices are artifacts of their trials."])


def _as_text(name: str) -> str:
    """A name in Markdown as it is, whatever is in it: what would be markup is an entity there."""
    return "".join(f"&#{ord(char)};" if char in _MARKUP else char for char in printable(name))
