"""``python -m heads.evaluate HEAD.hdf5 STORE``: how well a head does on the rows of a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table

from features.rows.feed import Feed
from features.runtime.backend import start_backend, use_backend
from features.runtime.command import progress, run_command, say
from features.runtime.errors import InputError
from features.runtime.files import make_folder
from features.runtime.text import decimal, printable
from features.store.reader import FeatureStore
from features.store.schema import Rows
from heads.evaluation.mistakes import check_images
from heads.evaluation.rows import Part, check_fits, rows_of
from heads.files.head_file import load_head, read_metadata
from heads.files.metadata import HeadMetadata

if TYPE_CHECKING:
    from heads.metrics.classification import Metrics
    from heads.metrics.scoring import Probabilities


def score_rows(model: Any, store: FeatureStore, rows: Rows) -> Probabilities:
    """Returns (rows, classes) probabilities of a head, averaged over the store's views; shows progress."""
    from heads.metrics.scoring import predict_probabilities  # noqa: PLC0415  Keras takes its time: checks come first

    feed = Feed(store, rows, memory_bytes=0)  # every row is read once
    with progress("rows") as display:
        task = display.add_task("scoring", total=len(rows) * feed.views)
        return predict_probabilities(model, feed, on_batch=lambda count: display.advance(task, count))


def main(
    *,
    head: Annotated[Path, typer.Argument(metavar="HEAD.hdf5", help="The head.", show_default=False)],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A feature store that fits it.", show_default=False)],
    part: Annotated[
        Part, typer.Option(help="Which rows: all, or a part as the head's study split this very store.")
    ] = Part.ALL,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write index.html there: curves and mistakes.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The image folder: the report shows mistakes with what the head saw.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    backend: Annotated[str | None, typer.Option(help="tensorflow or jax.", show_default=False)] = None,
) -> None:
    """Scores a head on the rows of a feature store, averaged over the store's views."""
    use_backend(backend)
    metadata = read_metadata(head)
    opened = FeatureStore(store)
    opened.require_complete()
    check_fits(head, metadata, opened)
    rows = rows_of(part, head, metadata, opened)
    if images is not None:
        if report is None:
            raise InputError("--images", expected="--report DIR, which shows them", found="none")
        check_images(images, opened)
    caveat = _caveat(part, metadata, opened)
    if caveat:
        say(f"{store}: {caveat}")
    if report is not None:
        make_folder(report)
    start_backend()
    from heads.metrics.calibration import with_temperature  # noqa: PLC0415
    from heads.metrics.classification import measure  # noqa: PLC0415  scikit-learn takes its time, too

    loaded = load_head(head)
    probabilities = with_temperature(score_rows(loaded.model, opened, rows), metadata.temperature)
    metrics = measure(probabilities, opened.labels[rows], opened.classes, patients=opened.patients[rows])
    title = f"{head} on {store}, {part} rows"
    if report is not None:
        from heads.evaluation.report import Scored, write_report  # noqa: PLC0415

        scored = Scored(
            title=title, store=opened, rows=rows, probabilities=probabilities, metrics=metrics, caveat=caveat
        )
        write_report(report / "index.html", scored, loaded.model, images=images)
        say(f"report: {report / 'index.html'}")
    if as_json:
        told = {"head": str(head), "store": str(store), "part": part.value, "views": list(opened.header.views)}
        typer.echo(json.dumps(told | metrics.to_dict(), indent=2))
    else:
        Console(highlight=False, markup=False).print(_tables(metrics, title))


def _caveat(part: Part, metadata: HeadMetadata, store: FeatureStore) -> str:
    """What to know about the rows, or ''."""
    again = part is Part.VALIDATION and part.value in (metadata.refit or {}).get("parts", ())
    if metadata.store_fingerprint == store.fingerprint and (part is Part.ALL or again):
        return "includes the rows that the head was trained on: its score on new images will be lower"
    return ""


def _tables(metrics: Metrics, title: str) -> Group:
    summary = Table(title=printable(title), show_header=False, title_justify="left")
    summary.add_column()
    summary.add_column(justify="right")
    patients = "" if metrics.patients is None else f" of {metrics.patients} patients"
    summary.add_row("rows", f"{metrics.rows}{patients}")
    interval = "" if metrics.accuracy_interval is None else " ({:.4f} to {:.4f})".format(*metrics.accuracy_interval)
    units = "rows" if metrics.patients is None else "patients"
    summary.add_row(f"accuracy (95 % interval, {units} as units)", decimal(metrics.accuracy) + interval)
    summary.add_row("balanced accuracy", decimal(metrics.balanced_accuracy))
    summary.add_row("loss in nats", decimal(metrics.loss))
    return Group(summary, _class_table(metrics), _confusion_table(metrics))


def _class_table(metrics: Metrics) -> Table:
    table = Table("class")
    for name in ("rows", "sensitivity", "specificity", "precision", "AUC"):
        table.add_column(name, justify="right")
    for one in metrics.per_class:
        numbers = (one.sensitivity, one.specificity, one.precision, one.auc)
        table.add_row(printable(one.name), f"{one.rows}", *map(decimal, numbers))
    return table


def _confusion_table(metrics: Metrics) -> Table:
    names = [printable(one.name) for one in metrics.per_class]
    table = Table("true \\ called")
    for name in names:
        table.add_column(name, justify="right")
    for name, counts in zip(names, metrics.confusion, strict=True):
        table.add_row(name, *map(str, counts))
    return table


if __name__ == "__main__":
    run_command(main)
