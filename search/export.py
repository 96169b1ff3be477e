"""``python -m search.export STUDY_DIR OUT.hdf5``: the best head of a study as a plain Keras file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.runtime.command import run_command, say
from search.finish.export import HeadChoice, export_head


def main(
    *,
    study: Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="The study directory.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT.hdf5", help="File to write.", show_default=False)],
    trial: Annotated[
        int | None,
        typer.Option(min=0, help="The head of this trial, as it was scored; else the chosen one.", show_default=False),
    ] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="One model that averages the finalists' heads.")] = False,
    with_backbone: Annotated[
        bool, typer.Option("--with-backbone", help="One model from image to class, preprocessing included.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="Where the backbone's weights are, if they came from a file.", show_default=False)
    ] = None,
    backend: Annotated[str | None, typer.Option(help="tensorflow or jax.", show_default=False)] = None,
) -> None:
    """Writes a study's head to a plain Keras .hdf5 file.

    The one that the study chose, trained on training and validation rows together; with --trial that of any trial
    that was kept, as its value was recorded.
    """
    choice = HeadChoice(trial=trial, ensemble=ensemble, with_backbone=with_backbone, weights=weights)
    exported = export_head(study, out, choice, backend=backend)
    if exported.remark:
        say(exported.remark)
    typer.echo(f"{out}: {exported.description}")


if __name__ == "__main__":
    run_command(main)
