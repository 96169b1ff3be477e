"""``python -m features.extract IMAGES STORE``: an image folder through a frozen backbone into a feature store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

import typer
from rich.progress import TaskID

from features.extraction.backbone_spec import BACKBONES, IMAGENET, BackboneSpec
from features.extraction.extraction import ExtractionSummary, extract
from features.extraction.skipped import skipped_path
from features.images.patients import GROUP_PATTERN
from features.images.views import parse_views
from features.runtime.backend import use_backend
from features.runtime.command import progress, run_command, say
from features.runtime.text import printable

_LISTED = 5
"""How many of the skipped images the summary names; the file beside the store names all."""


def describe(summary: ExtractionSummary) -> Iterator[str]:
    """Yields the lines that tell a user what an extraction did."""
    done = summary.images - len(summary.skipped)
    yield f"{summary.store}: {done:,} images, {len(summary.skipped):,} skipped, {summary.bytes / 1e6:,.1f} MB"
    if summary.settled:
        rate = summary.settled / summary.seconds
        before = summary.images - summary.settled
        yield f"{summary.settled:,} images in {summary.seconds:.1f} s, {rate:.1f} images/s" + (
            f"; {before:,} were there already" if before else ""
        )
    else:
        yield "nothing to do: the store was complete already"
    for name, count in summary.counts.items():
        yield f"{printable(name)}: {count:,} images of {summary.patients[name]:,} known patients"
    if summary.unknown:
        yield f"warning: the patient of {summary.unknown:,} images is unknown: see --group-pattern"
    missing = [printable(name) for name, count in summary.counts.items() if not count]
    if missing:
        yield f"warning: no image left of {', '.join(missing)}"
    for path, reason in list(summary.skipped.items())[:_LISTED]:
        yield f"skipped {printable(path)}: {reason}"
    if len(summary.skipped) > _LISTED:
        yield f"skipped {len(summary.skipped) - _LISTED:,} more: {skipped_path(summary.store)}"


def main(
    images: Annotated[Path, typer.Argument(help="Folder with one sub-folder a class.", show_default=False)],
    store: Annotated[Path, typer.Argument(help="The feature store to make or to finish.", show_default=False)],
    *,
    backbone: Annotated[str, typer.Option(help=f"One of {', '.join(BACKBONES)}.")] = BackboneSpec.name,
    weights: Annotated[
        str, typer.Option(help="imagenet (downloaded once by Keras), random, random:SEED, or a file.")
    ] = IMAGENET,
    alpha: Annotated[
        float | None, typer.Option(help="Width multiplier of mobilenet and mobilenet_v2.", show_default=False)
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels; else the backbone's own.", show_default=False)
    ] = None,
    preprocessing: Annotated[
        str, typer.Option(help="backbone: what keras.applications defines; unit: x / 255, as the article did.")
    ] = BackboneSpec.preprocessing,
    views: Annotated[
        str,
        typer.Option(
            help="Variants of each image, joined by commas: identity, flip, shift:X:Y, rotate:DEGREES, "
            "zoom:FACTOR, contrast:FACTOR, or several of these joined by +."
        ),
    ] = "identity",
    batch_size: Annotated[int, typer.Option(min=1, max=65536, help="Images in a forward pass.")] = 32,
    group_pattern: Annotated[
        str, typer.Option(help="Regular expression whose group is the patient in a file's name, ending left off.")
    ] = GROUP_PATTERN,
    dtype: Annotated[Literal["float16", "float32"], typer.Option(help="Of the features.")] = "float16",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many images, evenly from the classes.", show_default=False)
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an image that cannot be decoded.")] = False,
    backend: Annotated[
        Literal["tensorflow", "jax"] | None, typer.Option(help="Keras backend; else tensorflow.", show_default=False)
    ] = None,
) -> None:
    """Runs the images of a folder through a frozen backbone and keeps its last feature maps.

    An extraction that was stopped goes on where it was when the same command runs again.
    """
    use_backend(backend)
    spec = BackboneSpec(name=backbone, weights=weights, image_size=image_size, alpha=alpha, preprocessing=preprocessing)
    with _Progress() as display:
        summary = extract(
            images,
            store,
            spec=spec,
            views=parse_views(views),
            batch_size=batch_size,
            group_pattern=group_pattern,
            dtype=dtype,
            limit=limit,
            strict=strict,
            say=say,
            on_progress=display,
        )
    for line in describe(summary):
        say(line)


class _Progress:
    """An ``OnProgress`` for a terminal; nothing where there is nothing to do. Use as a context manager."""

    def __init__(self) -> None:
        self._display = progress("images")
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __call__(self, settled: int, total: int) -> None:
        if self._task is not None:
            self._display.update(self._task, completed=settled)
        elif settled < total:
            self._display.start()
            self._task = self._display.add_task("extracting", total=total, completed=settled, already=settled)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._display.stop()


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
