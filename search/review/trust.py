"""The report's sections on what a result is worth: repeats, test rows, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from features.leaks.leaks import TOO_FEW, parts_in_words
from features.runtime.text import capitalized, counted, decimal, duration, numbered, percent, printable
from heads.html.document import Document, facts, note, prose, table
from heads.metrics.excerpt import CLASS_COLUMNS, class_rows, confused_lines, worst_classes
from heads.metrics.intervals import RESAMPLES
from heads.metrics.patients import all_unknown, of_patients
from heads.metrics.scoring import Objective, lower_is_better
from search.finish.repeat_plan import describe_plan
from search.record.recommended import NAMES, describe_rule
from search.record.results import Calibration, FinalistRecord, HeldOutTest, ScoresOnTest
from search.record.study_record import StudyRecord
from search.review import figures
from search.review.words import mean_in_words, scored_on_test, value_in_words
from search.setup.audit import PAIRS_FILE, pairs_in_words, read_audit
from search.setup.classes import describe_absent
from search.trials.notes import TrialNotes

MOST_COLUMNS = 12
"""Classes up to which the confusion matrix stands in a report; of more, the pairs that were confused most often."""


def repeats(document: Document, record: StudyRecord) -> Iterable[str]:
    """What the finalists scored when they were trained again."""
    objective, finalists = record.config.objective, record.summary.finalists
    if not finalists:
        return
    seeds, luck = counted(finalists.heads[0].repeats, "seed"), "low" if lower_is_better(objective) else "high"
    yield prose(
        f"{_who(finalists.heads)} trained again from {seeds}{' each' if len(finalists.heads) > 1 else ''}."
        f" {_how_long(finalists.heads)} was chosen among these values, so their means are less too {luck} than that of"
        " the best trial; a little they still are, as the finalists were picked on the same rows. The winner is chosen"
        " by them."
    )
    if record.summary.recommendation:
        told = describe_rule(record.summary.recommendation, record.config.objective)
        yield prose(f"{capitalized(told)}. The simplest within one standard error of the best is recommended.")
    if finalists.plan:
        yield prose(describe_plan(finalists.plan))
    yield document.figure(figures.repeats(finalists.heads, objective), "value of each repeat of each finalist")
    stores = {trial.number: TrialNotes.of(trial).store for trial in record.ranked}
    yield table(
        ("", "trial", "mean ± sd", "repeats", "epochs", "each"),
        [_finalist(index, one, objective, stores) for index, one in enumerate(finalists.heads, 1)],
    )
    cost, seconds = finalists.cost, record.summary.search_seconds
    share = cost.seconds / seconds if seconds else 0
    yield note(
        f"{cost.trial_epochs:,} trial-epochs in {duration(cost.seconds)}: {percent(share, 0)} of the search's time."
    )


def _who(finalists: Sequence[FinalistRecord]) -> str:
    """The finalists, with a verb: the article's head is none of them where it did not come through the search."""
    trials = sum(not one.is_article for one in finalists)
    best = f"the best {numbered(trials, 'trial')}" if trials else ""
    article = "the article's head" if trials < len(finalists) else ""
    return f"{capitalized(' and '.join(filter(None, (best, article))))} {'were' if len(finalists) > 1 else 'was'}"


def _how_long(finalists: Sequence[FinalistRecord]) -> str:
    """What is told of the epochs of repeats, with the beginning of what follows from it."""
    if all(one.epochs for one in finalists):
        return "Each trains as long as its trial took to its best epoch, and its last one counts. No seed and no epoch"
    # Of a study from before that.
    return "Each run was judged by its best epoch, and those that fell behind were stopped early. No seed"


def _finalist(rank: int, finalist: FinalistRecord, objective: Objective, stores: Mapping[int, str]) -> tuple[str, ...]:
    store = f" on {printable(name)}" if (name := stores.get(finalist.trial)) else ""
    lost = f", {finalist.diverged} {finalist.how_lost}" if finalist.diverged else ""
    return (
        f"{rank}",
        f"{finalist.trial}{store}" + (" (the article's)" if finalist.is_article else ""),
        mean_in_words(objective, finalist),
        f"{finalist.repeats}{lost}",
        f"{finalist.epochs or '-'}",
        ", ".join(value_in_words(objective, value) for value in finalist.values),
    )


def heading(record: StudyRecord) -> str:
    """What the rows of ``tested`` are: new patients only where somebody knows the patients."""
    test = record.summary.test
    return "On test rows" if test and all_unknown(test.patients, test.patients_unknown) else "On new patients"


def tested(record: StudyRecord) -> Iterable[str]:
    """What the heads did on rows that played no part in anything before."""
    test = record.summary.test
    if not test:
        to_come = "The test rows have not been shown to this head; that is done once, at the end of the search."
        yield note((record.is_concluded and record.summary.verdict) or to_come)
        return
    yield prose(_how_tested(record, test))
    if test.recommended:
        yield prose(f"Recommended is {NAMES[test.recommended.kind]}: what is told of each class is of that.")
    yield table(
        ("", "accuracy", "95% interval", "balanced accuracy", "loss in nats"),
        [
            (
                name,
                percent(scores.accuracy),
                " to ".join(map(percent, scores.accuracy_interval)),
                percent(scores.balanced_accuracy),
                decimal(scores.loss),
            )
            for name, scores in scored_on_test(test)
        ],
    )
    yield note(
        f"Intervals by drawing {_drawn(test)}, again and again ({RESAMPLES:,} times), and Wilson's by Student's t,"
        " whichever reaches further; where all rows are classified correctly, or none, Wilson's alone."
    )
    absent = {part: names for part, names in record.summary.absent_classes.items() if part == "test"}
    for line in describe_absent(absent):
        yield note(f"{capitalized(line)}.")
    yield from _by_class(test.of_recommended)


def _how_tested(record: StudyRecord, test: HeldOutTest) -> str:
    """How often the test rows were used, and what the winner was trained on before."""
    uses = "once" if test.uses == 1 else f"{test.uses} times, as the study was resumed"
    refit = record.summary.refit
    trained = ""
    if refit:
        parts = " of all folds" if record.config.folds else f" ({' and '.join(refit.parts)} together)"
        epochs = counted(refit.epochs, "epoch")
        trained = f"Before that {test.winner} was trained on {refit.rows:,} rows{parts} for {epochs}. "
    of_whom = of_patients(test.patients, test.patients_unknown)
    were = "was" if test.rows == 1 else "were"
    return f"{trained}The {counted(test.rows, 'test row')}{of_whom} {were} used {uses}, at the end."


def _by_class(scores: ScoresOnTest) -> Iterable[str]:
    """The classes one by one, or the worst of many, and which of them were confused."""
    shown, others = worst_classes(scores.per_class)
    if others:
        yield note(f"{capitalized(others)}; summary.json has all.")
    yield table(("class", *CLASS_COLUMNS), class_rows(shown))
    names = [printable(metrics.name) for metrics in scores.per_class]
    if len(names) <= MOST_COLUMNS:
        counts = [(name, *map(str, row)) for name, row in zip(names, scores.confusion, strict=True)]
        yield table(("true \\ called", *names), counts, marked_diagonal=True)
        return
    yield note("The pairs of classes that were confused most often:")
    right = round(scores.accuracy * scores.rows)
    lines = confused_lines(scores.most_confused, rows=scores.rows, right=right)
    yield table(("true", "called", "rows"), [tuple(map(printable, line)) for line in lines])


def _drawn(test: ScoresOnTest) -> str:
    if not test.patients_unknown:
        return "patients, with all of their images"
    if all_unknown(test.patients, test.patients_unknown):
        return "images, as if each were of another patient"
    return "patients, with all of their images, an image of an unknown one by itself"


def leaks(record: StudyRecord) -> Iterable[str]:
    """What the parts share and should not."""
    found = read_audit(record.folder)
    if found is None:
        return
    yield prose(f"The parts: {parts_in_words(found.rows, found.patients, found.patients_shared)}.")
    number = found.near_identical
    if not number:
        none = TOO_FEW if number is None else "none found"
        yield prose(f"Images in different parts that are nearly identical: {none}.")
        return
    yield prose(
        f"Images in different parts that are nearly identical: {pairs_in_words(found)}; {PAIRS_FILE} lists them."
    )
    rows = []
    for one in found.pairs:
        places = f"{one.first_part}: {one.first_path}", f"{one.second_part}: {one.second_path}"
        rows.append((f"{one.similarity:.4f}", *places))
    yield table(("similarity", "one", "the other"), rows, wide=True)


def calibration(record: StudyRecord) -> Iterable[str]:
    """Whether the probabilities can be believed."""
    fitted, test = record.summary.calibration, record.summary.test
    if not fitted or fitted.temperature is None:
        return
    yield prose(
        "Probabilities are divided by a temperature, in logarithms, so that a head that says 90% is right nine times in"
        " ten. It was fitted on validation rows, by heads that were not trained on them; heads.predict applies it."
    )
    rows = []
    name = f"{test.winner}: " if test and test.recommended else ""
    if test and (recommended := test.recommended) and (told := recommended.calibration):
        if told.temperature is not None:
            rows.append(("recommended: temperature", f"{told.temperature:.3f}"))
        rows.append(("recommended: expected calibration error, test", _error(told)))
    rows.append((f"{name}temperature", f"{fitted.temperature:.3f}"))
    rows.append((f"{name}expected calibration error, validation", _error(fitted)))
    if test and test.calibration:
        rows.append((f"{name}expected calibration error, test", _error(test.calibration)))
    yield facts(rows)


def _error(calibrated: Calibration) -> str:
    return f"{calibrated.ece_before:.4f} before, {calibrated.ece_after:.4f} after"
