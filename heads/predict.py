"""``python -m heads.predict HEAD.hdf5 IMAGE_OR_FOLDER_OR_URL...``: the class of each image, and its probabilities."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from features.runtime.command import run_command, say, show, tell
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import make_folder
from features.runtime.options import checked, with_options
from heads.loaded import load_head
from heads.prediction.download import is_url
from heads.prediction.options import NamedClasses, PredictOptions
from heads.prediction.prediction import json_lines
from heads.prediction.stored import check_needs_no_image
from heads.prediction.tables import PredictionTable

_PIPE_WIDTH = 1000
"""Columns of a table that goes to a file or a pipe, so that no name in it is cut."""


def main(
    *,
    head: Annotated[Path, typer.Argument(metavar="HEAD.hdf5", help="The head.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE_OR_FOLDER_OR_URL...", help="What to predict; or a feature store.", show_default=False
        ),
    ],
    heatmaps: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Draw what speaks for each image's class (Grad-CAM).", show_default=False),
    ] = None,
    occlusion: Annotated[
        bool,
        typer.Option(
            "--occlusion", help="Also draw by how much the class suffers where a patch covers it; takes its time."
        ),
    ] = False,
    classes: NamedClasses = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
    backend: Annotated[str | None, typer.Option(help="tensorflow or jax.", show_default=False)] = None,
    **options: Any,
) -> None:
    """Predicts the class of images, or of the rows of a store.

    Where some cannot be used, the others are printed all the same, and the exit status is 1.
    """
    chosen = checked(PredictOptions, options, of="a prediction")
    loaded = load_head(head, backend=backend, classes=classes)
    store = loaded.store_of(images)
    if store is not None:
        asked = "--heatmaps" if heatmaps is not None else "--occlusion" if occlusion else None
        check_needs_no_image(store, chosen, drawn=asked)
    described = loaded.describe(chosen, store)
    if heatmaps is not None:
        _check_maps(heatmaps, images)
        make_folder(heatmaps)
    elif occlusion:
        raise InputError("--occlusion", expected="--heatmaps DIR, where the maps go", found="none")
    say(f"{head}: {described}")
    predicted = loaded.predict_each(images if store is None else store, chosen, maps=heatmaps, occlusion=occlusion)
    predictions, problem = predicted.rows, predicted.problem
    if problem and not predictions:
        raise problem
    for note in predicted.notes:
        say(f"note: {note}")
    if as_json:
        for piece in json_lines(predictions):
            tell(piece)
    else:
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        show(PredictionTable(predictions, loaded.classes, Console().width), width=width)
    if heatmaps is not None:
        drawn = sum(bool(prediction.maps) for prediction in predictions)
        say(f"maps of {drawn} of {len(predictions)} images: {heatmaps}")
    if problem:
        raise problem
    failed = sum(bool(prediction.reason) for prediction in predictions)
    if failed:
        raise BottleneckError(f"{failed} of {len(predictions)} images could not be used")


def _check_maps(folder: Path, images: Sequence[str]) -> None:
    """Refuses to draw maps into a folder whose images are predicted: the next time they would be among them.

    Raises:
        InputError: Naming the folder.
    """
    if any(not is_url(text) and Path(text).resolve() == folder.resolve() for text in images):
        expected = "a folder of its own, apart from the images"
        raise InputError("--heatmaps", expected=expected, found=f"{folder}, which is to be predicted")


with_options(main, PredictOptions, before="heatmaps")


if __name__ == "__main__":
    run_command(main)
