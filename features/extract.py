"""``python -m features.extract IMAGES STORE``: an image folder through a frozen backbone into a feature store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from features.extraction.door import run_extraction
from features.extraction.extraction import ExtractionSummary
from features.extraction.options import ExtractionOptions
from features.extraction.skipped import skipped_path
from features.runtime.command import run_command, say
from features.runtime.options import checked, with_options
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
    yield from (f"note: {note}" for note in summary.notes)
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
    **options: Any,
) -> None:
    """Runs the images of a folder through a frozen backbone and keeps its last feature maps.

    An extraction that was stopped goes on where it was when the same command runs again.
    """
    for line in describe(run_extraction(images, store, checked(ExtractionOptions, options, of="an extraction"))):
        say(line)


with_options(main, ExtractionOptions)


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
