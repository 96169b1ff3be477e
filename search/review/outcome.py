"""What a search ends with on the screen: what was found, how sure it is, and what comes next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from rich.table import Table

from features.runtime.command import say, show, tell
from features.runtime.text import duration, percent, printable, three_digits
from heads.metrics.patients import of_patients
from search.record.recommended import NAMES
from search.record.storage import JOURNAL
from search.review.exports import export_of_recommended, trained_in_words
from search.review.words import cost_in_words, scored_on_test, seeds_in_words, store_in_words
from search.setup.classes import describe_absent
from search.setup.config import REPORT_FILE
from search.setup.storage_url import hidden

if TYPE_CHECKING:
    from search.record.results import FinalistRecord
    from search.record.study_record import StudyRecord
    from search.record.summary import Summary


def show_outcome(record: StudyRecord) -> None:
    """Prints what a study has found, on standard output, and what to do with it, on standard error."""
    folder, config, summary = record.folder, record.config, record.summary
    best, article = summary.best, summary.article
    if not record.is_concluded or best is None:  # of several workers another had the end of it
        where = record.ended_in or "its study directory"
        say(f"{folder}: the search is over; another worker has written what was found, into {where}")
        return
    table = Table(title=f"study {config.name}", title_justify="left", show_header=False)
    table.add_row("trials", f"{summary.completed} completed, {summary.pruned} pruned, {summary.failed} failed")
    winner = f"trial {best.number}, {best.parameters:,} parameters"
    if record.is_chosen_by_repeats:
        table.add_row("chosen by its repeats", f"{winner}; {best.value:.4f} in the search")
    else:
        table.add_row("best on validation", f"{best.value:.4f}, {winner}")
    if best.store:
        cost = summary.cost_of_use.of_store(best.store) if summary.cost_of_use else None
        table.add_row("its features", printable(best.store) + (f": {store_in_words(cost)}" if cost else ""))
    if using := cost_in_words(summary, summary.best):
        table.add_row("an image with it", using)
    if article:
        table.add_row("article's head", f"{article.value:.4f} on the same rows")
    for finalist in summary.finalists.heads if summary.finalists else ():
        name = "article's head" if finalist.is_article else f"trial {finalist.trial}"
        table.add_row(f"{name}, repeated", _repeated(finalist, config.folds))
    if summary.recommendation:
        table.add_row("recommended", NAMES[summary.recommendation.kind])
    export = export_of_recommended(record)
    if export and (trained := trained_in_words(export.leaving)):
        table.add_row("what leaves", trained)
    _describe_test(table, summary)
    for line in describe_absent(summary.absent_classes):
        table.add_row("classes", line)
    rate = summary.trial_epochs_per_second
    table.add_row("time", duration(summary.search_seconds) + (f", {three_digits(rate)} trial-epochs/s" if rate else ""))
    _describe_bank(table, summary)
    show(table)
    tell(summary.verdict or "")
    where = shlex.quote(str(folder))
    if export:
        say(f"export what is recommended:  {export.command}")
    review = shlex.quote(hidden(config.storage)) if config.storage else shlex.quote(str(folder / JOURNAL))
    say(f"read its report:             {where}/{REPORT_FILE}")
    say(f"review the study:            optuna-dashboard {review}")


def _repeated(finalist: FinalistRecord, folds: int) -> str:
    if finalist.mean is None:
        return finalist.how_lost
    deviation = f" ± {finalist.sd:.4f}" if finalist.sd is not None else ""
    return f"{finalist.mean:.4f}{deviation} over {seeds_in_words(finalist, folds)}"


def _describe_test(table: Table, summary: Summary) -> None:
    for name, one in scored_on_test(summary.test) if summary.test else ():
        low, high = one.accuracy_interval
        rows = f"{one.rows} rows{of_patients(one.patients, one.patients_unknown)}"
        table.add_row(f"{name} on test", f"{one.accuracy:.4f} (95% interval {low:.4f} to {high:.4f}), {rows}")


def _describe_bank(table: Table, summary: Summary) -> None:
    bank, alone = summary.bank, summary.one_at_a_time
    if not bank:
        return
    if alone:
        table.add_row("one at a time", f"about {duration(alone.seconds)} for the same trial-epochs, by a sample")
    table.add_row(
        "bank",
        f"{bank.heads_at_once} heads at once, {percent(bank.page_occupancy, 0)} of {bank.pages} pages in use,"
        f" {bank.gflops} GFLOP/s ({percent(bank.fraction_of_peak or 0, 0)} of the bare products),"
        f" {percent(bank.bookkeeping_share or 0, 1)} bookkeeping",
    )
