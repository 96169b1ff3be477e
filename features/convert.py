"""``python -m features.convert SOURCE DESTINATION``: arrays, or the article's layout, to a feature store, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from features.runtime.command import bars, run_command, say
from features.runtime.errors import InputError
from features.runtime.text import counted, listed, printable
from features.store.array_files import is_array_file
from features.store.arrays import ArrayFiles, arrays_to_store
from features.store.article import article_to_store, is_article, store_to_article
from features.store.limits import MOST_IN_BATCH
from features.store.patient_names import remarks_on_words
from features.store.reader import FeatureStore
from features.store.schema import DTYPES

UNKNOWN_PATIENTS = "the patients are unknown, so images of one patient may fall on both sides of a split"


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
    if dtype not in (None, *DTYPES):
        raise InputError("--dtype", expected=" or ".join(DTYPES), found=dtype)
    of_arrays = is_array_file(source)
    to_store = of_arrays or is_article(source)
    for option, given in (("--classes", classes), ("--dtype", dtype)):
        if not to_store and given is not None:
            found = "a store, which has its own" if option == "--classes" else "a store: the layout is float32"
            raise InputError(option, expected="a source of arrays or of the article's layout", found=found)
    for option, path in (("--labels", labels), ("--paths", paths), ("--patients", patients), ("--parts", parts)):
        if not of_arrays and path is not None:
            raise InputError(option, expected="a source X.npy", found=source)
    files = ArrayFiles(source, labels, paths, patients, classes, parts)
    with bars("images") as bar:
        on_progress = bar("converting")
        if of_arrays:
            arrays_to_store(files.read(), destination, dtype=dtype, batch_size=batch_size, on_progress=on_progress)
        elif to_store:
            kind = dtype or "float16"
            article_to_store(
                source, destination, classes=classes, dtype=kind, batch_size=batch_size, on_progress=on_progress
            )
        else:
            store_to_article(source, destination, batch_size=batch_size, on_progress=on_progress)
    remarks = _of_arrays(files, FeatureStore(destination)) if of_arrays else [UNKNOWN_PATIENTS] * to_store
    for remark in remarks if to_store else [*_left_out(FeatureStore(source))]:
        say(f"{destination}: {remark}")


def _of_arrays(files: ArrayFiles, store: FeatureStore) -> Iterator[str]:
    """Says what was not given, and what was given for nothing."""
    unknown = store.header.patients.count("")
    if unknown == len(store):
        yield UNKNOWN_PATIENTS
    elif unknown:
        yield f"the patient of {counted(unknown, 'row')} is unknown, each of which counts as a patient of its own"
    yield from remarks_on_words(store.header.patients)
    if left_out := files.left_out():
        yield f"left out, as a store has no place for them: {listed(map(printable, left_out), 8)}"


def _left_out(store: FeatureStore) -> Iterator[str]:
    """Says what of a store the article's layout has no place for."""
    skipped, views = len(store) - len(store.usable), len(store.header.views) - 1
    parts = [f"{skipped} skipped rows"] * bool(skipped) + [f"all views but {store.header.views[0]}"] * bool(views)
    parts += ["the parts of its rows"] * bool(store.header.parts)
    parts += ["the basis of its channels"] * (store.header.projection is not None)
    if parts:
        yield f"left out, as the layout has no place for them: {' and '.join(parts)}"


if __name__ == "__main__":
    run_command(main, resume_hint="run the same command again to go on")
