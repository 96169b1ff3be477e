"""``python -m heads.predict HEAD.hdf5 IMAGE_OR_FOLDER_OR_URL...``: the class of each image, and its probabilities."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table

from features.backend import start_backend, use_backend
from features.command import console, progress, run_command
from features.decode import UndecodableError
from features.errors import BottleneckError, InputError
from features.images import IMAGE_SUFFIXES, printable
from features.pipeline import FeatureMaker, bottlenecks
from features.views import View, parse_views
from heads.backbone import backbone_spec, rebuild_backbone
from heads.files import Head, load_head, read_metadata
from heads.heatmaps import make_folder
from heads.remote import RemoteError, fetch, is_url

_FETCHES = 8
"""Addresses that are read at the same time."""
_IDENTITY = View("identity")
_PIPE_WIDTH = 1000
"""Columns of a table that goes to a file or a pipe, so that no name in it is cut."""


@dataclass(frozen=True)
class Source:
    """One image to be predicted.

    Attributes:
        name: As the user knows it: a path, or an address.
        path: Where its content is.
        reason: Why there is none, or ''.
    """

    name: str
    path: Path
    reason: str = ""


@dataclass(frozen=True)
class Prediction:
    """What a head makes of one image.

    Attributes:
        image: Path or address.
        label: The most probable class; None where the image could not be used.
        probabilities: By class name; None where the image could not be used.
        reason: Why it could not be used, or ''.
        maps: Pictures that were drawn of it, by kind.
    """

    image: str
    label: str | None = None
    probabilities: dict[str, float] | None = None
    reason: str = ""
    maps: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types: image, class, probabilities, error; and the path of each picture drawn, by kind."""
        return {
            "image": self.image,
            "class": self.label,
            "probabilities": self.probabilities,
            "error": self.reason or None,
            **self.maps,
        }


@dataclass(frozen=True)
class _Outcome:
    """Probabilities (classes,) of an image and its features (height, width, channels), or the reason for none."""

    probabilities: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    features: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.float32))
    reason: str = ""


Draw = Callable[[str, Path, npt.NDArray[np.float32], npt.NDArray[Any]], dict[str, str]]


def find_sources(arguments: Sequence[str], downloads: Path, *, leave_out: Path | None = None) -> list[Source]:
    """Turns arguments into images: addresses are read, folders walked (sorted, hidden entries left out).

    Args:
        arguments: Files, folders, http and https addresses.
        downloads: Folder for what is read from addresses; the caller removes it.
        leave_out: A folder that is not walked where it lies in one of the arguments: that of the maps, which are
            pictures, too.

    Returns:
        At least one source for each argument, in their order; a folder without images is one that has a reason.
    """
    hidden = None if leave_out is None else leave_out.resolve()
    with ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch") as pool:
        try:
            fetched = {
                number: pool.submit(_download, text, downloads / f"{number}")
                for number, text in enumerate(arguments)
                if is_url(text)
            }
            sources: list[Source] = []
            for number, text in enumerate(arguments):
                sources += [fetched[number].result()] if number in fetched else _local(Path(text), hidden)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sources


def _download(url: str, path: Path) -> Source:
    try:
        path.write_bytes(fetch(url))
    except RemoteError as error:
        return Source(url, path, str(error))
    except OSError as error:  # a full disk
        return Source(url, path, f"cannot be kept in {path.parent}: {error.strerror}")
    return Source(url, path)


def _local(path: Path, hidden: Path | None) -> list[Source]:
    try:
        folder = path.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        return [Source(str(path), path, f"{error.strerror}")]
    if not folder:
        return [Source(str(path), path)]
    problems: list[OSError] = []
    found = [Source(str(image), image) for image in _walk(path, hidden, problems.append)]
    found += [Source(str(error.filename), path, f"{error.strerror}") for error in problems]
    return found or [Source(str(path), path, "a folder without images")]


def _walk(folder: Path, hidden: Path | None, on_problem: Callable[[OSError], None]) -> Iterator[Path]:
    for at, folders, files in os.walk(folder, onerror=on_problem):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and (Path(at) / name).resolve() != hidden
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(at) / name


def predict(
    head: Head,
    backbone: FeatureMaker,
    views: Sequence[View],
    sources: Sequence[Source],
    *,
    batch_size: int,
    on_batch: Callable[[int], object] = lambda count: None,
    draw: Draw | None = None,
) -> Iterator[Prediction]:
    """Yields the prediction of each source, in order; one that cannot be used has its reason and stops no other.

    Features are rounded to the dtype of the store that the head was trained on, so that an image gets the class here
    that it gets there.

    Args:
        head: The head.
        backbone: The one whose features it takes.
        views: Probabilities are averaged over these views of each image.
        sources: The images.
        batch_size: Images in a forward pass.
        on_batch: Called after every batch with the number of images in it.
        draw: Draws maps of an image that could be used: given its name, its file, its probabilities (classes,) and the
            features of the image as it is, it returns the pictures' paths by kind.

    Raises:
        BottleneckError: The backbone gives features that are not finite.
    """
    usable = [source for source in sources if not source.reason]
    made = _outcomes(head, backbone, views, [source.path for source in usable], batch_size, plain=draw is not None)
    for source in sources:
        outcome = _Outcome(reason=source.reason) if source.reason else next(made)
        on_batch(1)
        if outcome.reason:
            yield Prediction(source.name, reason=outcome.reason)
            continue
        probabilities = outcome.probabilities
        named = dict(zip(head.metadata.classes, probabilities.tolist(), strict=True))
        try:
            maps = draw(source.name, source.path, probabilities, outcome.features) if draw else {}
        except UndecodableError as error:  # it was decoded at a reduced scale before
            yield Prediction(source.name, reason=str(error))
            continue
        yield Prediction(source.name, head.metadata.classes[int(probabilities.argmax())], named, maps=maps)


def _outcomes(
    head: Head, backbone: FeatureMaker, views: Sequence[View], paths: Sequence[Path], batch_size: int, *, plain: bool
) -> Iterator[_Outcome]:
    """Yields what comes of each image.

    Where ``plain``, with the features of the image as it is, which is then made even where it is none of the views.
    """
    from heads.calibration import with_temperature  # noqa: PLC0415  beside Keras
    from heads.scoring import average_views, predict_batch  # noqa: PLC0415

    shown = [*views, *([_IDENTITY] if plain and _IDENTITY not in views else [])]
    place = shown.index(_IDENTITY) if plain else 0
    size = max(1, min(batch_size, len(paths)))
    batches = [range(start, min(start + size, len(paths))) for start in range(0, len(paths), size)]
    for batch in bottlenecks(paths, backbone, shown, batches=batches, batch_size=size, dtype="float32"):
        with np.errstate(over="ignore"):
            features = batch.features.astype(head.metadata.dtype)
        finite = np.isfinite(features).all(axis=(1, 2, 3, 4))
        features[~finite] = 0
        seen = average_views([predict_batch(head.model, features[:, view], size) for view in range(len(views))])
        rows = with_temperature(seen, head.metadata.temperature)
        for index, row, fits, own in zip(batch.indices, rows, finite, features, strict=True):
            reason = batch.reasons.get(index, "")
            if not reason and not fits:
                reason = f"features too large for {head.metadata.dtype}"
            elif not reason and not np.isfinite(row).all():
                reason = "the head's probabilities are not finite"
            yield _Outcome(row, own[place], reason)


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
        console.print(
            f"maps of {drawn} of {len(predictions)} images: {heatmaps}", highlight=False, markup=False, soft_wrap=True
        )
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
    from heads.maps import MapFolder  # noqa: PLC0415  beside Keras

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
