"""``python -m features.extract IMAGES STORE``: an image folder through a frozen backbone into a feature store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from features.extraction.door import run_extraction
from features.extraction.options import ExtractionOptions
from features.extraction.summary import describe
from features.runtime.command import run_command, say
from features.runtime.options import checked, with_options


def main(
    images: Annotated[
        Path, typer.Argument(help="Folder with one sub-folder a class; with --table, any.", show_default=False)
    ],
    store: Annotated[Path, typer.Argument(help="The feature store to make or to finish.", show_default=False)],
    **options: Any,
) -> None:
    """Runs the images of a folder through a frozen backbone and keeps its last feature maps.

    An extraction that was stopped goes on where it was when the same command runs again. Where images have changed
    since, it says so; with --update it computes these, and keeps the rest.
    """
    for line in describe(run_extraction(images, store, checked(ExtractionOptions, options, of="an extraction"))):
        say(line)


with_options(main, ExtractionOptions)


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
