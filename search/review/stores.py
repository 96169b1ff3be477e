"""The stores of a study in its report: which were tried, how far each got, and what their heads cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial

from features.runtime.text import counted, milliseconds, printable
from heads.html.document import Document, note, prose, table
from heads.metrics.scoring import Objective, best_of
from search.record.study_record import StudyRecord, epochs_of, state_of
from search.review.cheapest_head import CheapestHead, CostedTrial, cheapest_head, costed_trials
from search.review.gallery import FigureName, Gallery
from search.review.plotting import value_of
from search.review.words import value_in_words
from search.setup.space import FEATURES
from search.trials.notes import TrialNotes
from search.trials.ranking import is_counted


def store_names(record: StudyRecord) -> list[str]:
    """Returns the names of the stores that a study has; none where it has one."""
    return [name for name in record.config.stores_by_name if name]


def store_cells(record: StudyRecord, trial: FrozenTrial) -> tuple[str, ...]:
    """Returns the cells of a table of trials that say its store and what an image costs; none where there is one."""
    if not store_names(record):
        return ()
    store, cost = TrialNotes.of(trial).store, record.summary.cost_of_use
    return printable(store), milliseconds(cost.of(trial.number, store) if cost else None)


def store_head(record: StudyRecord) -> tuple[str, ...]:
    """Returns the heading of ``store_cells``."""
    return (FEATURES, "an image") if store_names(record) else ()


def article_trials(record: StudyRecord) -> dict[str, FrozenTrial]:
    """Returns the article's head on each store, as far as it has begun there, by the store's name."""
    return {TrialNotes.of(trial).store: trial for trial in record.trials if record.is_article_on_its_store(trial)}


def section(document: Document, gallery: Gallery, record: StudyRecord) -> Iterable[str]:
    """What each store gave, and accuracy against cost."""
    articles, objective = article_trials(record), record.config.objective
    rows = [_store(record, name, articles.get(name), objective) for name in store_names(record)]
    head = ("", "backbone", "pixels", "map", "views", "backbone's time", "trials", "completed", "epochs trained")
    yield table((*head, "best", "article's head"), rows, named_rows=True)
    if record.summary.cost_of_use is None:
        yield note("What the features are, and what they cost, is told at the end of the search.")
        return
    if FigureName.VALUE_AND_COST not in gallery:
        yield note("What an image costs is not known: no backbone was measured.")
        return
    yield document.figure(gallery[FigureName.VALUE_AND_COST], f"{objective} against milliseconds per image")
    if found := cheapest_head(record):
        yield prose(_advice(found, record))
    yield note(
        "An image's time is that of the backbone and of the head, in all views over which predictions are averaged, on"
        " the machine of the search; reading the image is not in it. Backbones are measured, of the heads of each"
        " store a few, and the others are reckoned by their size. Values are those of trials; finalists are compared"
        " with each other by the means of their repeats." + _left_out(costed_trials(record), record)
    )


def _store(record: StudyRecord, name: str, article: FrozenTrial | None, objective: Objective) -> Sequence[str]:
    cost = record.summary.cost_of_use
    of_store = cost.of_store(name) if cost else None
    trials = [trial for trial in record.trials if is_counted(trial) and TrialNotes.of(trial).store == name]
    completed = [trial for trial in trials if state_of(trial) == "completed"]
    best = best_of(map(value_of, completed), objective) if completed else None
    of_article = value_of(article) if article is not None and state_of(article) == "completed" else None
    shown = ("-", "-", "-", "-", "-")
    if of_store:
        pixels = f"{of_store.image_size}" if of_store.image_size else "-"
        shape = "x".join(map(str, of_store.feature_shape))
        time = milliseconds(of_store.milliseconds) if of_store.milliseconds is not None else "not known"
        shown = (printable(of_store.backbone), pixels, shape, f"{of_store.views}", time)
    return (
        printable(name),
        *shown,
        f"{len(trials):,}",
        f"{len(completed):,}",
        f"{sum(map(epochs_of, trials)):,}",
        value_in_words(objective, best) if best is not None else "-",
        value_in_words(objective, of_article) if of_article is not None else "-",
    )


def _advice(found: CheapestHead, record: StudyRecord) -> str:
    objective, best, cheapest = record.config.objective, found.best, found.cheapest
    margin = value_in_words(objective, found.margin)
    begin = f"The best head is {_named(best, objective)}."
    if cheapest.trial.number == best.trial.number:
        return f"{begin} No cheaper head is within one standard error of it ({margin})."
    times = best.milliseconds / cheapest.milliseconds
    return (
        f"{begin} The cheapest within one standard error of it ({margin}) is {_named(cheapest, objective)}:"
        f" {times:.3g} times as fast."
    )


def _named(one: CostedTrial, objective: Objective) -> str:
    value = value_in_words(objective, one.trial.value)
    return f"trial {one.trial.number} on {printable(one.store)}, {value} at {milliseconds(one.milliseconds)} per image"


def _left_out(shown: Sequence[CostedTrial], record: StudyRecord) -> str:
    left = len(record.ranked) - len(shown)
    return f" Not shown, since the cost is not known: {counted(left, 'completed trial')}." if left else ""
