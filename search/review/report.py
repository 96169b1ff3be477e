"""A study's report: one HTML document that needs no network."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from features.runtime.files import write_text
from features.runtime.text import (
    capitalized,
    counted,
    decimal,
    duration,
    listed,
    numbered,
    percent,
    printable,
    three_digits,
)
from heads.html.document import Document, facts, note, plain, prose, strong, table
from heads.metrics.scoring import lower_is_better
from search.record.recommended import NAMES
from search.record.results import BankFigures, OneAtATimeEstimate, TrialResult
from search.record.storage import JOURNAL
from search.record.study_record import Progress, StudyRecord, epochs_of
from search.review import figures, parameter_figures, stores, trust
from search.review.exports import export_of_ensemble, export_of_recommended, export_of_trial
from search.review.gallery import FigureName, Gallery, name_of_parameter
from search.review.plotting import MOST_POINTS
from search.review.words import (
    END_TO_COME,
    cost_in_words,
    describe_head,
    mean_in_words,
    objective_in_words,
    seeds_in_words,
    store_in_words,
    validation_in_words,
    value_in_words,
)
from search.setup.classes import describe_absent
from search.setup.own_function import has_command
from search.setup.reproduce import command_line, python_call, resume_command, to_toml
from search.setup.storage_url import hidden
from search.trials.notes import TrialNotes

LEADERS = 20


def write_report(path: Path, record: StudyRecord) -> None:
    """Writes the report's HTML, whole or not at all.

    Raises:
        BottleneckError: The disk is full or cannot be written.
    """
    write_text(path, make_report(record), shared=True)


def make_report(record: StudyRecord) -> str:
    """Returns the report's HTML."""
    document = Document(title=f"Study {record.config.name}", subtitle=_state(record))
    document.cards(_headline(record))
    document.add("What was found", *_findings(record))
    if record.summary.notes:
        document.add("Notes", *(prose(printable(text)) for text in record.summary.notes))
    document.add("Leaderboard", *_leaderboard(record))
    gallery = Gallery(record)
    if stores.store_names(record):
        document.add("Stores", *stores.section(document, gallery, record))
    if record.finalists:
        document.add("Repeats", *trust.repeats(document, record))
    if record.summary.best:
        document.add(trust.heading(record), *trust.tested(record))
    if leaks := list(trust.leaks(record)):
        document.add("Leaks", *leaks)
    if record.finalists and record.summary.calibration:
        document.add("Calibration", *trust.calibration(record))
    _add_figures(document, gallery, record)
    document.add("Cost", *_cost(record))
    document.add("The study, resolved", *_resolved(record))
    document.add("Again, and out of here", *_commands(record))
    return document.html()


def _state(record: StudyRecord) -> str:
    summary, config = record.summary, record.config
    done = f"{summary.trials:,} of {counted(config.trials, 'trial')}"
    if record.progress is Progress.RUNNING:
        return f"The search is still running: {done} so far. Write the report again for later ones."
    if record.lacks_its_end:
        return f"The search was stopped: {done}, {END_TO_COME}. It goes on with {record.resume_option}."
    if record.progress is Progress.STOPPED:
        return f"The search was stopped: {done}. It goes on with {record.resume_option}."
    return f"The search is over: {done}."


def _headline(record: StudyRecord) -> Iterable[tuple[str, str, str]]:
    best, article, test = record.summary.best, record.summary.article, record.summary.test
    objective, finalists = record.config.objective, record.finalists
    name = validation_in_words(objective)
    if best and finalists:
        compared = {"found": None if finalists[0].is_article else finalists[0]}
        compared["the article's head"] = next((f for f in finalists if f.is_article), None)
        for what, one in compared.items():
            if one:
                deviation = f"± {value_in_words(objective, one.sd)} " if one.sd is not None else ""
                mean = value_in_words(objective, one.mean)
                yield f"{what}, {name}", mean, f"mean {deviation}over {seeds_in_words(one, record.config.folds)}"
    elif best:
        found = f"trial {best.number}, {best.parameters:,} parameters"
        yield f"found, {name}", value_in_words(objective, best.value), found
        if article:
            value = value_in_words(objective, article.value)
            yield f"the article's head, {name}", value, f"{article.parameters:,} parameters"
    if test:
        scores = test.of_recommended
        low, high = scores.accuracy_interval
        interval = f"95% interval {percent(low)} to {percent(high)}"
        found = "the article's head" if test.is_article else "found"
        what = "recommended" if test.recommended else found
        yield f"{what}, accuracy on test rows", percent(scores.accuracy), interval
    alone = record.summary.one_at_a_time
    seconds = record.summary.search_seconds
    if seconds:
        beside = f"about {duration(alone.seconds)} one at a time, by a sample" if alone else "with trials under way"
        yield "search time", duration(seconds), beside


def _findings(record: StudyRecord) -> Iterable[str]:
    best, verdict = record.summary.best, record.summary.verdict
    if not best:
        yield note("No trial has completed yet.")
        return
    if verdict:
        yield strong(verdict)
    yield prose(_heads(record, best))
    known = any(record.config.split.patients.values())
    by = " by patient" if known else ""
    folds = f"the mean over {record.config.folds} folds{by}" if record.config.folds else "one validation part"
    objective = record.config.objective
    value = value_in_words(objective, best.value)
    one_row = f"; one row is {100 / record.judging_rows:.2f}%" if objective == "accuracy" else ""
    luck = "lower" if lower_is_better(objective) else "higher"
    trials = record.summary.trials
    picked = trials > 1 and not (record.article and record.article.number == best.number)  # that one was set
    chosen = f"one of the best of {counted(trials, 'trial')}" if picked else "the best of its epochs"
    yield prose(
        f"As trial {best.number} its {validation_in_words(objective)} was {value} in its best epoch"
        f" ({best.best_epoch}), {folds}{one_row}. As {chosen} on the same rows that is {luck} than it will be on new"
        f" {'patients' if known else 'images'}."
    )


def _heads(record: StudyRecord, best: TrialResult) -> str:
    """What is recommended, and the search's winner where that is another head."""
    recommended = record.summary.recommendation
    heads = {trial.number: TrialNotes.of(trial) for trial in record.ranked}
    winner = f"{describe_head(heads[best.number].head)}.{_features(record, heads[best.number].store)}"
    if recommended is None or recommended.chosen.is_head_of(best.number):
        return f"The head: {winner}"
    chosen = recommended.chosen
    if chosen.is_head_of(chosen.trials[0]):
        notes = heads[chosen.trials[0]]
        made = f": {describe_head(notes.head)}.{_features(record, notes.store)}"
    else:
        of = f"of {numbered(len(chosen.trials), 'trial')} {', '.join(map(str, chosen.trials))}"
        made = f": {len(chosen.trials) * chosen.copies} heads {of}."
    return f"Recommended is {NAMES[chosen.kind]}{made} The search's winner, trial {best.number}: {winner}"


def _features(record: StudyRecord, store: str) -> str:
    """Which of several stores a head takes."""
    cost = record.summary.cost_of_use
    if not store:
        return ""
    of_store = cost.of_store(store) if cost else None
    return f" On the features of {printable(store)}" + (f": {store_in_words(of_store)}." if of_store else ".")


def _leaderboard(record: StudyRecord) -> Iterable[str]:
    ranked, article = record.ranked, record.article
    if not ranked:
        yield note("No trial has completed yet.")
        return
    objective = record.config.objective
    means = {one.trial: mean_in_words(objective, one) for one in record.finalists}
    shown = ranked[:LEADERS]
    rows = [_leader(f"{rank}", trial, record, means) for rank, trial in enumerate(shown, 1)]
    if article is not None and article.number not in {trial.number for trial in shown}:
        rank = 1 + next(at for at, trial in enumerate(ranked) if trial.number == article.number)
        rows.append(_leader(f"{rank}", article, record, means))
    name = objective_in_words(objective)
    repeated = ("repeated",) if means else ()
    own = (
        *([] if objective == "loss" else ["loss"]),
        "epochs",
        "best epoch",
        "parameters",
        *stores.store_head(record),
        "head",
    )
    yield table(("", "trial", *repeated, name, *own), rows, wide=True)
    first = "The finalists by the mean of their repeats, the others by" if means else "By"
    then = "" if objective == "loss" else " then loss,"
    yield note(f"{first} {name} on validation,{then} then number." + _first(len(ranked)))


def _first(count: int) -> str:
    return f" First {LEADERS}." if count > LEADERS else ""


def _leader(rank: str, trial: FrozenTrial, record: StudyRecord, means: Mapping[int, str]) -> tuple[str, ...]:
    notes = TrialNotes.of(trial)
    return (
        rank,
        f"{trial.number}",
        *((means.get(trial.number, "-"),) if means else ()),
        decimal(trial.value),
        *([] if record.config.objective == "loss" else [decimal(notes.validation_loss)]),
        f"{epochs_of(trial)}",
        f"{notes.best_epoch}",
        f"{notes.parameters:,}",
        *stores.store_cells(record, trial),
        ("The article's head: " if record.is_article_on_its_store(trial) else "") + describe_head(notes.head),
    )


def _add_figures(document: Document, gallery: Gallery, record: StudyRecord) -> None:
    objective, ranked = record.config.objective, record.ranked
    if FigureName.HISTORY in gallery:
        document.add("History", document.figure(gallery[FigureName.HISTORY], "value of each completed trial"))
    if FigureName.LEARNING_CURVES in gallery:
        some = sum(map(figures.has_curve, record.trials))
        drawn = document.figure(gallery[FigureName.LEARNING_CURVES], f"{objective} by epoch")
        document.add("Learning curves", drawn, _thinned(some, figures.MOST_CURVES, "curves"), _scored_on(record))
    if FigureName.WHAT_ENDED_WHEN in gallery:
        ended = document.figure(gallery[FigureName.WHAT_ENDED_WHEN], "trials by the epochs they trained")
        document.add("What ended when", ended, prose(_pruning(record)))
    importance = gallery.get(FigureName.IMPORTANCE)
    fewest = parameter_figures.FEWEST_FOR_IMPORTANCE
    text = note(f"Not shown for fewer than {fewest} trials, or where too many are equally good.")
    if importance:
        text = note(
            "By PED-ANOVA, over the parameters as drawn: also where they are of no effect, as those of hidden layers"
            " that a head has not, or of a schedule that it does not follow."
        )
    document.add("Which parameters matter", document.figure(importance, "importance of parameters"), text)
    if FigureName.VALUE_AND_SIZE not in gallery:
        return
    remark = _thinned(len(ranked), MOST_POINTS, "completed trials")
    slices = [
        document.figure(gallery[name_of_parameter(name)], f"{objective} against {name}")
        for name in parameter_figures.parameter_names(ranked)
    ]
    document.add(
        "Parameters one by one",
        document.grid(slices),
        remark,
        prose("Only trials in which the parameter had an effect."),
    )
    across = document.figure(gallery[FigureName.PARAMETERS_TOGETHER], "parameters of completed trials", wide=True)
    _, which = gallery.together
    picked = prose("Drag along an axis to pick a range; the darker, the better.")
    document.add("Parameters together", across, remark, note(which) if which else "", picked)
    sizes = document.figure(gallery[FigureName.VALUE_AND_SIZE], f"{objective} against parameters")
    document.add("Value and size", sizes, remark)


def _thinned(count: int, most: int, what: str) -> str:
    return note(f"{most} of {count:,} {what}, chosen evenly by rank.") if count > most else ""


def _scored_on(record: StudyRecord) -> str:
    cost = record.summary.cost_of_use
    if cost is None or all(store.views == 1 for store in cost.stores):
        return ""
    return note("An epoch is scored on the first view of an image, a trial's value is over all of its views.")


def _pruning(record: StudyRecord) -> str:
    summary = record.summary
    counts = f"{summary.completed:,} completed, {summary.pruned:,} pruned, {summary.failed:,} failed"
    full = record.config.epochs * summary.trials
    share = f": {percent(summary.trial_epochs / full, 0)} of what training all to the end would be" if full else ""
    return f"{counts}. {summary.trial_epochs:,} trial-epochs{share}."


def _cost(record: StudyRecord) -> Iterable[str]:
    summary, concluded = record.summary, record.concluded
    rate = summary.trial_epochs_per_second
    rows = [
        ("trials", f"{summary.trials:,}, and {summary.interrupted} interrupted and run again"),
        ("trial-epochs", f"{summary.trial_epochs:,}"),
        ("time with trials under way", duration(summary.search_seconds)),
        ("rate", f"{three_digits(rate)} trial-epochs a second" if rate else "-"),
    ]
    bank, alone = summary.bank, summary.one_at_a_time
    if bank:
        rows += [
            ("heads at once", f"{bank.heads_at_once:g} on average, in {bank.pages} pages of 16 channels"),
            ("pages in use", percent(bank.page_occupancy)),
            ("matrix products", _speed(bank)),
            ("bookkeeping", f"{percent(bank.bookkeeping_share)} of the time, {bank.bookkeeping_seconds:g} s"),
        ]
    if alone:
        rows.append(("one at a time, by Keras fit", _alone(alone, summary.search_seconds)))
    for name, head in (("the head found", summary.best), ("the article's head", summary.article)):
        if using := cost_in_words(summary, head):
            rows.append((f"an image, with {name}", using))
    yield facts(rows)
    if concluded and concluded.trials != summary.trials:
        yield note(f"What was measured is of the last finished run, after {concluded.trials} trials.")
    if reasons := summary.failures_by_reason:
        yield table(("why trials failed", "trials"), [(why, listed(numbers, 12)) for why, numbers in reasons.items()])


def _speed(bank: BankFigures) -> str:
    speed = f"{bank.gflops:g} GFLOP/s in {bank.dtype}"
    return speed + (f", {percent(bank.fraction_of_peak)} of the bare products" if bank.fraction_of_peak else "")


def _alone(alone: OneAtATimeEstimate, seconds: float) -> str:
    times = f", {alone.seconds / seconds:.1f} times as long" if seconds else ""
    sampled = ", ".join(map(str, alone.sampled))
    some = numbered(len(alone.sampled), "trial")
    return f"about {duration(alone.seconds)}{times}: reckoned from a few epochs of {some} {sampled}"


def _resolved(record: StudyRecord) -> Iterable[str]:
    config = record.config
    if config.own_head:
        own = config.own_head
        yield facts([("own heads of", own.function), ("its file", f"{own.file or 'none'}, sha256 {own.sha256 or '-'}")])
    else:
        yield facts((name, _listed_value(value)) for name, value in config.space.items())
    counts, patients = config.split.counts, config.split.patients
    parts = [(name, f"{count:,}", f"{patients[name]:,}") for name, count in counts.items()]
    yield table(("part", "rows", "known patients"), parts)
    for line in describe_absent(record.summary.absent_classes):
        yield note(f"{capitalized(line)}.")
    paths = [
        (f"{name} {part} store".strip(), f"{store.path}, fingerprint {store.fingerprint}")
        for name, stores_of_one in config.stores_by_name.items()
        for part, store in stores_of_one.given.items()
    ]
    patience = f"; complete after {counted(config.patience, 'epoch')} without a better one" if config.patience else ""
    bank = f", {config.pages} pages, {config.dtype}" if config.pages and config.engine == "fused" else ""
    yield facts(
        [
            ("seed", f"{config.seed}"),
            ("objective", f"{config.objective}; class weights: {config.class_weights}"),
            ("sampler, pruner", f"{config.sampler}, {config.pruner}"),
            ("epochs, batch size", f"{config.epochs}, at most {config.batch_size}{patience}"),
            ("finalists", config.repeats_in_words),
            ("folds", f"{config.folds}" if config.folds else "none: one validation part"),
            ("engine", f"{config.engine}{bank} on {config.backend}"),
            ("split", f"identity {config.split.identity}{_shared(record)}"),
            *paths,
            ("versions", ", ".join(f"{name} {number}" for name, number in config.versions.items())),
        ]
    )


def _shared(record: StudyRecord) -> str:
    """How many patients parts share, as it was counted; nothing where it was not."""
    audit = record.summary.audit
    if not any(record.config.split.patients.values()):
        return "; no patient is known"
    if audit is None:
        return ""
    return f"; {counted(audit.patients_shared, 'patient') if audit.patients_shared else 'no patient'} in two parts"


def _commands(record: StudyRecord) -> Iterable[str]:
    folder, config = shlex.quote(str(record.folder)), record.config
    best, ensemble, trial = export_of_recommended(record), export_of_ensemble(record), export_of_trial(record)
    exports = {
        "what is recommended" if record.is_concluded else "the best head so far": best.command if best else None,
        "the average of the finalists": ensemble.command if ensemble else None,
        "a trial's own head": trial,
    }
    if lines := {what: line for what, line in exports.items() if line}:
        words = "; ".join(lines)
        yield prose(f"{capitalized(words)}, as a Keras file:")
        yield plain("\n".join(lines.values()))
    yield prose("The study in the Optuna dashboard, without touching its record:")
    yield plain(f"python -m search.dashboard {folder}")
    if record.progress is not Progress.FINISHED:
        yield prose("Should the search have stopped before its end, it goes on with:")
        yield plain(resume_command(config, record.folder, record.resume_option))
    if config.head and not has_command(config.head):
        yield prose("The same study again, in Python: no command line can name the function of its heads.")
        yield plain(python_call(config))
    else:
        space = "" if config.head else f" the space as {config.name}.toml, and"
        yield prose(f"The same study again:{space}")
        yield plain(command_line(config))
    if not config.head:
        yield plain(to_toml(config), folded=f"{config.name}.toml")
    yield note(f"The record: {hidden(config.storage) if config.storage else record.folder / JOURNAL}")


def _listed_value(domain: Any) -> str:
    if isinstance(domain, list):
        return ", ".join(map(_plain_value, domain))
    if not isinstance(domain, dict):
        return f"{_plain_value(domain)}, fixed"
    step = f" in steps of {domain['step']:g}" if "step" in domain else ""
    scale = ", logarithmic" if domain.get("log") else ""
    return f"{domain['low']:g} to {domain['high']:g}{step}{scale}{', or 0' if domain.get('or_zero') else ''}"


def _plain_value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
