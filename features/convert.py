"""``python -m features.convert SOURCE DESTINATION``: arrays, or the article's layout, to a feature store, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from features.runtime.command import run_command, say
from features.runtime.options import checked, with_options
from features.store.conversion import describe, run_conversion
from features.store.conversion_options import ConversionOptions

_SOURCE = "Arrays: an .npz with X and y, or X as .npy; or a file of the article's layout; or a store."
_DESTINATION = "The store to make or to finish; of a store, the file in the article's layout."


def main(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help=_SOURCE, show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help=_DESTINATION, show_default=False)],
    **options: Any,
) -> None:
    """Makes a store of arrays from elsewhere or of the article's layout; turns a store into that. SOURCE decides.

    An .npz has X (n, c) or (n, h, w, c), y (class indices or names), and perhaps paths, patients, parts and
    classes. A conversion to a store that was stopped goes on where it was when the same command runs again.
    """
    for line in describe(run_conversion(source, destination, checked(ConversionOptions, options, of="a conversion"))):
        say(line)


with_options(main, ConversionOptions)


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
