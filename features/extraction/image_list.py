"""The images of an extraction: a class is a folder, or what a table says; a row is a file, or a page of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from features.extraction.options import ExtractionOptions
from features.images.columns import read_labels
from features.images.folder import ImageTable, scan_folder
from features.images.label_file import read_label_file
from features.images.pages import with_all_pages
from features.images.tabled import scan_table
from features.runtime.text import printable

if TYPE_CHECKING:
    import pandas as pd


def images_of(images: Path, options: ExtractionOptions, frame: pd.DataFrame | None) -> ImageTable:
    """Lists the images that an extraction is of, with the pages that ``--pages`` asks for.

    Args:
        images: The image folder.
        options: Those of the extraction.
        frame: A table of labels, instead of the file that ``options.table`` names.

    Raises:
        InputError: Folder, table or options do not fit; the column or the row is named.
    """
    table = _files_of(images, options, frame)
    return with_all_pages(table) if options.pages == "all" else table


def _files_of(images: Path, options: ExtractionOptions, frame: pd.DataFrame | None) -> ImageTable:
    if frame is None and options.table is None:
        options.refuse_columns()
        return scan_folder(images, group_pattern=options.group_pattern, limit=options.limit)
    choice = options.columns
    name = "DataFrame" if options.table is None else printable(str(options.table))
    if frame is None:
        assert options.table is not None
        frame = read_label_file(options.table)
    labels = read_labels(frame, name, choice)
    return scan_table(images, labels, group_pattern=options.group_pattern, limit=options.limit, strict=options.strict)
