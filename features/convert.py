"""``python -m features.convert SOURCE DESTINATION``: arrays, or the article's layout, to a feature store, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.runtime.command import bars, run_command, say
from features.store.conversion import convert
from features.store.limits import MOST_IN_BATCH


def main(
    *,
    source: Annotated[
        Path,
        typer.Argument(
            help="Arrays: an .npz with X and y, or X as .npy; or a file of the article's layout; or a store.",
            show_default=False,
        ),
    ],
    destination: Annotated[
        Path,
        typer.Argument(help="The store to make; of a store, the file in the article's layout.", show_default=False),
    ],
    labels: Annotated[
        Path | None, typer.Option(help="Beside X.npy: class indices or names, as .npy.", show_default=False)
    ] = None,
    paths: Annotated[
        Path | None, typer.Option(help="Beside X.npy: a name of each row, as .npy.", show_default=False)
    ] = None,
    patients: Annotated[
        Path | None, typer.Option(help="Beside X.npy: the patient of each row, as .npy.", show_default=False)
    ] = None,
    parts: Annotated[
        Path | None,
        typer.Option(help="Beside X.npy: train, validation or test for each row, as .npy.", show_default=False),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Class names in label order, joined by commas; else those in the labels, or class-0, class-1, ... "
            "(of the article's layout with four, the article's)."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float16 or float32, of the store that is made; else that of the arrays, or float16."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_IN_BATCH, help="Rows in a batch; else the article's own where that is known, else 100."
        ),
    ] = None,
) -> None:
    """Makes a store of arrays from elsewhere or of the article's layout; turns a store into that. SOURCE decides.

    An .npz has X (n, c) or (n, h, w, c), y (class indices or names), and perhaps paths, patients, parts and
    classes. A conversion to a store that was interrupted goes on when the same command runs again.
    """
    with bars("images") as bar:
        remarks = convert(
            source,
            destination,
            labels=labels,
            paths=paths,
            patients=patients,
            parts=parts,
            classes=classes,
            dtype=dtype,
            batch_size=batch_size,
            on_progress=bar("converting"),
        )
    for remark in remarks:
        say(f"{destination}: {remark}")


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
