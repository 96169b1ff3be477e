"""``python -m heads.predict HEAD.hdf5 IMAGE_OR_FOLDER_OR_URL...``: the class of each image, and its probabilities."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from features.extraction.pipeline import FeatureMaker
from features.images.views import View, parse_views
from features.runtime.backend import start_backend, use_backend
from features.runtime.command import progress, run_command, say
from features.runtime.errors import BottleneckError, InputError
from features.runtime.files import make_folder
from features.runtime.text import printable
from heads.files.backbone import backbone_spec, rebuild_backbone
from heads.files.head_file import Head, load_head, read_metadata
from heads.prediction.download import is_url
from heads.prediction.prediction import Draw, Prediction, predict
from heads.prediction.sources import find_sources

_PIPE_WIDTH = 1000
"""Columns of a table that goes to a file or a pipe, so that no name in it is cut."""


def main(
    *,
    head: Annotated[Path, typer.Argument(metavar="HEAD.hdf5", help="The head.", show_default=False)],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE_OR_FOLDER_OR_URL...", help="What to predict.", show_default=False)
    ],
    backbone: Annotated[
        str | None, typer.Option(help="Backbone, where the head's file does not name it.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Its weights; the file, where they came from a file.", show_default=False)
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Its width multiplier.", show_default=False)] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels of what it is shown.", show_default=False)
    ] = None,
    preprocessing: Annotated[str | None, typer.Option(help="backbone or unit (x / 255).", show_default=False)] = None,
    views: Annotated[
        str | None, typer.Option(help="Views to average over, e.g. identity,flip; else the head's.", show_default=False)
    ] = None,
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
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="Images in a forward pass.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
    backend: Annotated[str | None, typer.Option(help="tensorflow or jax.", show_default=False)] = None,
) -> None:
    """Predicts the class of images. The exit status is 1 if one of them could not be used; the others are printed."""
    use_backend(backend)
    metadata = read_metadata(head)
    spec = backbone_spec(
        head,
        metadata,
        backbone=backbone,
        weights=weights,
        alpha=alpha,
        image_size=image_size,
        preprocessing=preprocessing,
    )
    chosen = parse_views(",".join(metadata.views) if views is None else views)
    if heatmaps is not None:
        _check_maps(heatmaps, images)
        make_folder(heatmaps)
    elif occlusion:
        raise InputError("--occlusion", expected="--heatmaps DIR, where the maps go", found="none")
    start_backend()
    loaded = load_head(head)
    built = rebuild_backbone(head, metadata, spec)
    occlusion_batch = batch_size if occlusion else 0
    draw = _drawing(heatmaps, loaded, built, chosen, occlusion_batch) if heatmaps is not None else None
    predictions: list[Prediction] = []
    problem: BottleneckError | None = None
    with TemporaryDirectory(prefix="predict-") as downloads, progress("images") as display:
        sources = find_sources(images, Path(downloads), leave_out=heatmaps)
        task = display.add_task("predicting", total=len(sources))
        made = predict(
            loaded,
            built,
            chosen,
            sources,
            batch_size=batch_size,
            on_batch=lambda n: display.advance(task, n),
            draw=draw,
        )
        try:
            for prediction in made:
                predictions.append(prediction)
        except BottleneckError as error:
            problem = error  # what was predicted until then is told all the same
    if problem and not predictions:
        raise problem
    if as_json:
        typer.echo(json.dumps([prediction.to_dict() for prediction in predictions], indent=2))
    else:
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        Console(highlight=False, markup=False, width=width).print(_table(predictions, metadata.classes))
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


def _drawing(folder: Path, head: Head, backbone: FeatureMaker, views: Sequence[View], occlusion_batch: int) -> Draw:
    from heads.prediction.maps import MapFolder  # noqa: PLC0415  beside Keras

    return MapFolder(folder, head, backbone, views, occlusion_batch=occlusion_batch).draw


def _table(predictions: Sequence[Prediction], classes: Sequence[str]) -> Table:
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("class")
    for name in classes:
        table.add_column(printable(name), justify="right")
    reasons = any(prediction.reason for prediction in predictions)
    if reasons:
        table.add_column("why not", overflow="fold")
    for prediction in predictions:
        numbers = [f"{share:.4f}" for share in (prediction.probabilities or {}).values()] or ["-"] * len(classes)
        cells = [printable(prediction.image), printable(prediction.label or "-"), *numbers]
        table.add_row(*cells, *([printable(prediction.reason)] if reasons else []))
    return table


if __name__ == "__main__":
    run_command(main)
