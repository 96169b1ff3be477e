"""The list of what a store has not, beside it: ``<STORE>.skipped.csv``, columns path and reason.

Images that could not be decoded; after them, what a table of labels and its images do not have in common.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from features.images.content import read_content
from features.images.decode import UndecodableError, decode_image
from features.images.folder import ImageTable
from features.images.pages import source_of
from features.images.reading import Reading, Source, Tally
from features.runtime.files import write_text
from features.store.schema import RowState
from features.store.writer import StoreWriter


def skipped_path(store: Path) -> Path:
    """Where the list of a store's skipped images is."""
    return store.with_name(f"{store.name}.skipped.csv")


def skipped_images(
    writer: StoreWriter, table: ImageTable, known: Mapping[int, str], reading: Reading
) -> dict[str, str]:
    """Returns the reason of each skipped image, by path, in row order.

    Rows that an earlier, killed run skipped are decoded once more for their reasons: they are few, and the list is
    then the same as that of a run which was not killed.

    Args:
        writer: The store.
        table: Its images.
        known: Reasons that this run met, by row.
        reading: How files are read.
    """
    rows = np.flatnonzero(writer.done == RowState.SKIPPED).tolist()
    size = writer.header.image_size
    paths = {row: table.paths[row] for row in rows}
    return {
        path: known.get(row) or _reason(source_of(table.folder, path), size, reading) for row, path in paths.items()
    }


def _reason(source: Source, size: int, reading: Reading) -> str:
    untold = replace(reading, tally=Tally())
    try:
        # in the store's size, on which what Pillow says of damage may depend
        decode_image(read_content(source).source, size, untold)
    except UndecodableError as error:
        return str(error)
    return (
        "could not be decoded when the store was made (with a smaller --max-pixels, or from another file),"
        " and could be now: a new store has it"
    )


def write_skipped(store: Path, skipped: Mapping[str, str], left_out: Iterable[tuple[str, str]] = ()) -> None:
    """Writes the list, atomically; where there is nothing to list, removes one that is there.

    A list that is there already stays untouched: nothing else may be written where a finished store is kept.

    Args:
        store: The store.
        skipped: Reason of each image that could not be decoded, by path.
        left_out: Path and reason of what is no row of the store.

    Raises:
        BottleneckError: The list cannot be written.
    """
    path = skipped_path(store)
    entries = [*skipped.items(), *left_out]
    if not entries:
        if path.exists():  # on a disk that is read-only even what is not there cannot be removed
            path.unlink()
        return
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("path", "reason"))
    rows.writerows(entries)
    if text.getvalue() != _written(path):
        write_text(path, text.getvalue())


def _written(path: Path) -> str | None:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return None
