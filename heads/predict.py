"""``python -m heads.predict HEAD.hdf5 IMAGE_OR_FOLDER_OR_URL...``: the class of each image, and its probabilities."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from features.runtime.command import run_command, say, show, tell
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import make_folder
from features.runtime.options import checked, with_options
from features.runtime.text import printable
from heads.loaded import load_head
from heads.prediction.download import is_url
from heads.prediction.options import PredictOptions
from heads.prediction.prediction import Prediction

_PIPE_WIDTH = 1000
"""Columns of a table that goes to a file or a pipe, so that no name in it is cut."""
_FOR_NAMES = 28
"""Columns that the names of image and class have at least."""
_DIGITS, _RULE = len("0.1234"), len(" | ")
_RUNNERS_UP = 2
"""Classes that are shown beside the called one, where not all are."""


def main(
    *,
    head: Annotated[Path, typer.Argument(metavar="HEAD.hdf5", help="The head.", show_default=False)],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE_OR_FOLDER_OR_URL...", help="What to predict.", show_default=False)
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
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
    backend: Annotated[str | None, typer.Option(help="tensorflow or jax.", show_default=False)] = None,
    **options: Any,
) -> None:
    """Predicts the class of images. The exit status is 1 if one of them could not be used; the others are printed."""
    chosen, loaded = checked(PredictOptions, options, of="a prediction"), load_head(head, backend)
    described = loaded.describe(chosen)
    if heatmaps is not None:
        _check_maps(heatmaps, images)
        make_folder(heatmaps)
    elif occlusion:
        raise InputError("--occlusion", expected="--heatmaps DIR, where the maps go", found="none")
    say(f"{head}: {described}")
    predicted = loaded.predict_each(images, chosen, maps=heatmaps, occlusion=occlusion)
    predictions, problem = predicted.rows, predicted.problem
    if problem and not predictions:
        raise problem
    for note in predicted.notes:
        say(f"note: {note}")
    if as_json:
        tell(json.dumps([prediction.to_dict() for prediction in predictions], indent=2))
    else:
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        show(_table(predictions, loaded.classes, Console().width), width=width)
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


def _table(predictions: Sequence[Prediction], classes: Sequence[str], width: int) -> Table:
    """Returns a column for each class; where they would not fit beside the images' names, the likeliest of each image.

    Args:
        predictions: Of each image.
        classes: In label order.
        width: Of the reader's screen or page, in columns.
    """
    shown = [printable(name) for name in classes]
    every = sum(max(len(name), _DIGITS) + _RULE for name in shown) <= width - _FOR_NAMES
    table = Table(caption=None if every else "the likeliest classes: --json has all", caption_justify="left")
    table.add_column("image", overflow="fold")
    table.add_column("class", overflow="fold")
    for name in shown if every else ("probability", "then"):
        table.add_column(name, justify="right" if name != "then" else "left", overflow="fold")
    reasons = any(prediction.reason for prediction in predictions)
    if reasons:
        table.add_column("why not", overflow="fold")
    for prediction in predictions:
        numbers = _every(prediction, classes) if every else _likeliest(prediction)
        cells = [printable(prediction.image), printable(prediction.label or "-"), *numbers]
        table.add_row(*cells, *([printable(prediction.reason)] if reasons else []))
    return table


def _every(prediction: Prediction, classes: Sequence[str]) -> list[str]:
    return [f"{share:.4f}" for share in (prediction.probabilities or {}).values()] or ["-"] * len(classes)


def _likeliest(prediction: Prediction) -> list[str]:
    """The probability of the called class, and the next classes with theirs."""
    if not prediction.probabilities:
        return ["-", "-"]
    ranked = sorted(prediction.probabilities.items(), key=lambda one: -one[1])  # stable: as argmax has it
    first, *others = ranked[: 1 + _RUNNERS_UP]
    return [f"{first[1]:.4f}", ", ".join(f"{printable(name)} {share:.4f}" for name, share in others)]


with_options(main, PredictOptions, before="heatmaps")


if __name__ == "__main__":
    run_command(main)
