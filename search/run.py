"""``python -m search.run``: a study over the heads that a feature store can have."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from features.runtime.backend import start_backend, use_backend
from features.runtime.command import console, progress, run_command
from features.runtime.files import write_json
from features.runtime.lock import WriterLock
from features.store.reader import FeatureStore
from search.record.storage import JOURNAL, OpenedStudy, open_study
from search.setup.audit import audit_study, describe
from search.setup.config import FILE, SPLIT_FILE, StudyConfig
from search.setup.data import SearchData, load_data
from search.setup.options import DEFAULT_STUDY, DEFAULTS, Given, Options, resolve
from search.training.snapshot import Saved, read_snapshot

if TYPE_CHECKING:
    from search.record.results import BankFigures, FinalistRecord
    from search.record.summary import Summary

DEMONSTRATION_SEED = 0
"""The demonstration's scans are the same for every seed of a study."""


def _help(text: str, name: str, **rules: Any) -> Any:
    return _optional(f"{text} [default: {DEFAULTS[name]}]", **rules)


def _optional(text: str, **rules: Any) -> Any:
    return typer.Option(help=text, show_default=False, **rules)


def main(
    *,
    features: Annotated[Path | None, _optional("Store to train on; without it, a built-in demonstration.")] = None,
    validation: Annotated[Path | None, _optional("Store to validate on; else split off --features.")] = None,
    test: Annotated[Path | None, _optional("Store to test on; else split off --features.")] = None,
    trials: Annotated[int | None, _help("Heads to try.", "trials", min=1)] = None,
    epochs: Annotated[int | None, _help("Epochs of a head that is not pruned, at most.", "epochs", min=1)] = None,
    patience: Annotated[
        int | None, _help("Epochs without a better one after which a head is complete; 0: never.", "patience", min=0)
    ] = None,
    study: Annotated[Path | None, _optional(f"Study file. [default: {DEFAULT_STUDY}]")] = None,
    out: Annotated[Path | None, _optional("Study directory. [default: studies/NAME of the study file]")] = None,
    storage: Annotated[str | None, _optional("Optuna storage URL; else a journal in the study directory.")] = None,
    folds: Annotated[
        int | None, _help("Folds to validate on in turn, by patient; 0: one part.", "folds", min=0)
    ] = None,
    engine: Annotated[Literal["fused", "solo"] | None, _help("How heads are trained.", "engine")] = None,
    pages: Annotated[
        int | None, _optional("Pages of 16 channels that train at once. [default: by the study and the memory]", min=1)
    ] = None,
    dtype: Annotated[Literal["bfloat16", "float32"] | None, _optional("Of products. [default: the faster]")] = None,
    pruner: Annotated[
        Literal["halving", "hyperband", "median", "none"] | None, _help("Who stops weak heads early.", "pruner")
    ] = None,
    sampler: Annotated[Literal["tpe", "random", "qmc"] | None, _help("Who draws heads.", "sampler")] = None,
    objective: Annotated[
        Literal["accuracy", "balanced_accuracy", "auc", "loss"] | None, _help("What heads are ranked by.", "objective")
    ] = None,
    class_weights: Annotated[
        Literal["none", "balanced"] | None, _help("Whether rows of rare classes count more.", "class_weights")
    ] = None,
    finalists: Annotated[
        int | None, _help("Best heads to train again after the search; 0: none.", "finalists", min=0)
    ] = None,
    repeats: Annotated[int | None, _help("Seeds to train each of them from.", "repeats", min=1)] = None,
    batch_size: Annotated[int | None, _help("Rows in a batch, at most.", "batch_size", min=1)] = None,
    validation_fraction: Annotated[float | None, _help("Share to validate on.", "validation_fraction")] = None,
    test_fraction: Annotated[float | None, _help("Share to test on.", "test_fraction")] = None,
    seed: Annotated[int | None, _help("Decides everything.", "seed", min=0, max=2**31 - 1)] = None,
    backend: Annotated[Literal["tensorflow", "jax"] | None, _optional("Keras backend. [default: tensorflow]")] = None,
    snapshot_every: Annotated[
        float, typer.Option(min=0, help="Seconds between two snapshots of the bank: what a kill loses, at most.")
    ] = 20.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a study that was stopped.")] = False,
) -> None:
    """Searches for the best head over cached bottlenecks, reviewed in the Optuna dashboard while it runs."""
    given = Given(
        features=features,
        validation=validation,
        test=test,
        study=study,
        out=out,
        storage=storage,
        trials=trials,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        seed=seed,
        folds=folds,
        engine=engine,
        pages=pages,
        dtype=dtype,
        sampler=sampler,
        pruner=pruner,
        objective=objective,
        class_weights=class_weights,
        finalists=finalists,
        repeats=repeats,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
    )
    options = resolve(given, resume=resume)
    backend_name = use_backend(backend or (options.recorded.backend if options.recorded else None))
    with _prepared(options) as data:
        config = options.config(data, backend_name)
        saved = read_snapshot(options.folder) if resume and config.engine == "fused" else None
        opened = open_study(
            options.folder,
            config.name,
            config.storage,
            direction=config.direction,
            resume=resume,
            keep_bytes=saved.journal_bytes if saved else None,
        )
        try:
            _introduce(options, config, data)
            config, summary = _search(options, config, data, opened, saved, snapshot_every=snapshot_every)
        finally:
            opened.close()
    _report(options.folder)
    _conclude(options.folder, config, summary)


@contextmanager
def _prepared(options: Options) -> Iterator[SearchData]:
    """Opens the data, and holds the study directory's lock. Nothing is made where the data do not fit."""
    path: Path | None = options.values["features"]
    data = _load(path, options) if path else None
    with WriterLock(options.folder / FILE):
        yield data or _load(_demonstration(options.folder), options)


def _load(path: Path, options: Options) -> SearchData:
    options.check_store(FeatureStore(path))
    return load_data(
        path,
        validation=options.values["validation"],
        test=options.values["test"],
        validation_share=options.values["validation_fraction"],
        test_share=options.values["test_fraction"],
        folds=options.values["folds"],
        seed=options.values["seed"],
        resident=options.values["engine"] == "solo",
    )


def _demonstration(folder: Path) -> Path:
    from features.extraction.demonstration import make_demonstration  # noqa: PLC0415  starts TensorFlow

    _say("no --features: searching over the built-in demonstration, generated scans through a random backbone")
    with progress("scans") as display:
        task = display.add_task("making the demonstration", total=None)
        return make_demonstration(
            folder / "demonstration",
            seed=DEMONSTRATION_SEED,
            on_progress=lambda done, total: display.update(task, completed=done, total=total),
        )


def _introduce(options: Options, config: StudyConfig, data: SearchData) -> None:
    for remark in data.remarks:
        _say(f"note: {remark}")
    shape = " x ".join(map(str, data.store.header.feature_shape))
    _say(f"{data.store.path}: {shape}, {len(data.store.header.views)} views")
    with progress("images") as display:
        task = display.add_task("comparing", visible=False)  # not where an earlier run has done it
        found = audit_study(
            options.folder,
            data,
            on_progress=lambda done, total: display.update(task, completed=done, total=total, visible=True),
        )
    for line in describe(found):
        _say(line)
    _say(f"{options.folder}: {config.trials} trials of up to {config.epochs} epochs ({config.engine}, {config.pruner})")


def _search(
    options: Options,
    config: StudyConfig,
    data: SearchData,
    opened: OpenedStudy,
    saved: Saved | None,
    *,
    snapshot_every: float,
) -> tuple[StudyConfig, Summary]:
    """Runs the trials that are left and scores the winner; returns the config as settled, and the summary."""
    start_backend()
    from search.finish.checkpoints import TopCheckpoints  # noqa: PLC0415
    from search.finish.conclusion import finish_study  # noqa: PLC0415
    from search.training.display import Display  # noqa: PLC0415
    from search.training.runner import run_pool  # noqa: PLC0415
    from search.training.sizing import settle_bank  # noqa: PLC0415
    from search.training.solo import OneAtATime  # noqa: PLC0415
    from search.training.throughput import describe_bank  # noqa: PLC0415
    from search.trials.ask_tell import Book  # noqa: PLC0415  after the choice of the backend

    folder, study = options.folder, opened.study
    shape = None
    if config.engine == "fused":
        config, shape = settle_bank(config, options.space, data)
    write_json(folder / SPLIT_FILE, data.split)
    config.write(folder)  # from here on the study can be resumed
    book = Book(study, config, options.space, going_on=saved.going_on if saved else ())
    checkpoints = TopCheckpoints(folder, study, config, data)
    bank: BankFigures | None = None
    with Display(study, config) as display:
        if shape:
            throughput, compilations = run_pool(
                folder,
                opened,
                shape=shape,
                data=data,
                book=book,
                sink=checkpoints,
                display=display,
                saved=saved,
                snapshot_every=snapshot_every,
            )
            bank = describe_bank(shape, str(config.dtype), throughput, compilations)
        else:
            OneAtATime(book, data, checkpoints, display, flush=opened.flush).run()
    summary = finish_study(checkpoints, options.space, bank=bank, snapshot_every=snapshot_every)
    return config, summary


def _report(folder: Path) -> None:
    from search.record.study_record import read_record  # noqa: PLC0415  after the choice of the backend
    from search.review.report import FILE as REPORT  # noqa: PLC0415
    from search.review.report import write_report  # noqa: PLC0415

    write_report(folder / REPORT, read_record(folder))


def _conclude(folder: Path, config: StudyConfig, summary: Summary) -> None:
    best, article = summary.best, summary.article
    assert best is not None
    table = Table(title=f"study {config.name}", title_justify="left", show_header=False)
    table.add_row("trials", f"{summary.completed} completed, {summary.pruned} pruned, {summary.failed} failed")
    table.add_row("best on validation", f"{best.value:.4f}, trial {best.number}, {best.parameters:,} parameters")
    if article:
        table.add_row("article's head", f"{article.value:.4f} on the same rows")
    for finalist in summary.finalists.heads if summary.finalists else ():
        name = "article's head" if finalist.is_article else f"trial {finalist.trial}"
        table.add_row(f"{name}, repeated", _repeated(finalist))
    again = summary.refit
    if again:
        table.add_row("exported head", f"trained on {again.rows:,} rows for {again.epochs} epochs")
    _describe_test(table, summary)
    table.add_row("time", f"{summary.search_seconds:.0f} s, {summary.trial_epochs_per_second} trial-epochs/s")
    _describe_bank(table, summary)
    Console(highlight=False).print(table)
    typer.echo(summary.verdict)
    where = shlex.quote(str(folder))
    _say(f"export the best head:  python -m search.export {where} best.hdf5")
    review = shlex.quote(config.storage) if config.storage else shlex.quote(str(folder / JOURNAL))
    _say(f"read its report:       {where}/report.html")
    _say(f"review the study:      optuna-dashboard {review}")


def _repeated(finalist: FinalistRecord) -> str:
    if finalist.mean is None:
        return "diverged"
    deviation = f" ± {finalist.sd:.4f}" if finalist.sd is not None else ""
    stopped = f", stopped after {finalist.stopped_after} epochs" if finalist.stopped_after else ""
    return f"{finalist.mean:.4f}{deviation} over {finalist.through} seeds{stopped}"


def _describe_test(table: Table, summary: Summary) -> None:
    test = summary.test
    if not test:
        return
    article = None if test.is_article else test.article
    for name, one in (("best", test), ("article's head", article), ("ensemble", test.ensemble)):
        if one:
            low, high = one.accuracy_interval
            text = f"{one.accuracy:.4f} (95% interval {low:.4f} to {high:.4f})"
            table.add_row(f"{name} on test", f"{text}, {one.rows} rows of {one.patients} patients")


def _describe_bank(table: Table, summary: Summary) -> None:
    bank, alone = summary.bank, summary.one_at_a_time
    if not bank or not alone:
        return
    table.add_row("one at a time", f"about {alone.seconds:.0f} s for the same trial-epochs, by a sample")
    table.add_row(
        "bank",
        f"{bank.heads_at_once} heads at once, {100 * bank.page_occupancy:.0f}% of {bank.pages} pages in use,"
        f" {bank.gflops} GFLOP/s ({100 * (bank.fraction_of_peak or 0):.0f}% of the bare products),"
        f" {100 * (bank.bookkeeping_share or 0):.1f}% bookkeeping",
    )


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command with --resume to go on")
