"""``python -m search.cluster``: a study, or the extraction of a store, on the machines of a Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from features.extraction.options import ExtractionOptions
from features.extraction.summary import describe
from features.runtime.command import bars, run_commands, say
from features.runtime.options import checked, keyword, with_options
from search.on_ray import HELP_HERE, NOT_HERE, run_study_on_ray
from search.review.outcome import show_outcome
from search.setup.command_line import search_options, signature_of
from search.workers.extraction import extract_on_ray
from search.workers.study_on_ray import Placement

_PANEL = "The cluster"
_ADDRESS = typer.Option(
    help="local: Ray is started on this machine; auto: the cluster that it is part of; or HOST:PORT of its head.",
    rich_help_panel=_PANEL,
)
_WORKERS = typer.Option(help="Workers.", rich_help_panel=_PANEL)
_GPUS = typer.Option(help="GPUs of each.", rich_help_panel=_PANEL)
_CPUS = typer.Option(
    help=escape("CPUs of each. [default: with local its share of this machine, else as many as its machine has]"),
    show_default=False,
    rich_help_panel=_PANEL,
)


def run(**given: Any) -> None:
    """Searches for the best head with several workers; run again, it goes on."""
    study = run_study_on_ray(**given)
    show_outcome(study.record)


def extract(
    images: Annotated[Path, typer.Argument(help="Image folder, which all machines see.", show_default=False)],
    store: Annotated[Path, typer.Argument(help="The feature store to make or to finish.", show_default=False)],
    *,
    address: Annotated[str, _ADDRESS] = Placement.address,
    workers: Annotated[int, _WORKERS] = Placement.workers,
    gpus_per_worker: Annotated[float, _GPUS] = Placement.gpus,
    **options: Any,
) -> None:
    """Extracts an image folder into a feature store with several workers: byte for byte that of features.extract."""
    chosen = checked(ExtractionOptions, options, of="an extraction")
    with bars("images") as bar:
        summary = extract_on_ray(
            images,
            store,
            chosen,
            address=address,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            say=say,
            on_progress=bar("extracting"),
        )
    for line in describe(summary):
        say(line)


with_options(extract, ExtractionOptions)
signature_of(
    run,
    [
        *search_options(without=NOT_HERE, help_overrides=HELP_HERE, with_images=False),
        keyword("address", Annotated[str, _ADDRESS], Placement.address),
        keyword("workers", Annotated[int, _WORKERS], Placement.workers),
        keyword("gpus_per_worker", Annotated[float, _GPUS], Placement.gpus),
        keyword("cpus_per_worker", Annotated[int | None, _CPUS], Placement.cpus),
    ],
)

if __name__ == "__main__":
    run_commands({"run": run, "extract": extract}, resume_hint="run the same command again to go on")
