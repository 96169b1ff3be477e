"""``python -m heads.evaluate HEAD.hdf5 STORE``: how well a head does on the rows of a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from features.runtime.command import console_of_results, run_command, say, show, tell
from features.runtime.errors import InputError
from features.runtime.files import make_folder
from heads.evaluation.mistakes import check_images
from heads.evaluation.rows import Part
from heads.evaluation.tables import check_csv, tables, write_csv
from heads.html.place import check_document
from heads.loaded import load_head
from heads.prediction.options import NamedClasses

_PAGE = "index.html"


def main(
    *,
    head: Annotated[Path, typer.Argument(metavar="HEAD.hdf5", help="The head.", show_default=False)],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A feature store that fits it.", show_default=False)],
    part: Annotated[
        Part,
        typer.Option(
            help="Which rows: all, or a part, as the head's study split this very store, or as the store itself says "
            "where it is another."
        ),
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
    confusion: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="Write there how many rows of each class were called what.", show_default=False
        ),
    ] = None,
    classes: NamedClasses = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    backend: Annotated[str | None, typer.Option(help="tensorflow or jax.", show_default=False)] = None,
) -> None:
    """Scores a head on the rows of a feature store, averaged over the store's views."""
    loaded = load_head(head, backend=backend, classes=classes)
    chosen = loaded.choose_rows(store, part)
    if images is not None:
        if report is None:
            raise InputError("--images", expected="--report DIR, which shows them", found="none")
        check_images(images, chosen.store)
    if confusion is not None:
        check_csv(confusion)
    if report is not None:
        check_document("--report", report / _PAGE)
    if chosen.caveat:
        say(f"{store}: {chosen.caveat}")
    if report is not None:
        make_folder(report)
    found = loaded.score(chosen)
    title = f"{head} on {store}, {part} rows"
    if report is not None:
        from heads.evaluation.report import Scored, write_report

        scored = Scored(
            title=title,
            store=chosen.store,
            rows=chosen.rows,
            probabilities=found.probabilities,
            metrics=found.metrics,
            caveat=chosen.caveat,
        )
        write_report(report / _PAGE, scored, loaded.model_for(chosen.store), images=images)
        say(f"report: {report / _PAGE}")
    if confusion is not None:
        write_csv(confusion, found.metrics)
        say(f"confusion: {confusion}")
    if as_json:
        context = {"head": str(head), "store": str(store), "part": part.value, "views": list(chosen.store.header.views)}
        tell(json.dumps(context | found.metrics.to_dict(), indent=2))
    else:
        show(tables(found.metrics, title, console_of_results()))


if __name__ == "__main__":
    run_command(main)
