"""The scale of an extraction's images, and the rows that its files make, before anything is decoded for good."""

from __future__ import annotations

from features.extraction.options import ExtractionOptions
from features.images.folder import ImageTable
from features.images.pages import source_of, with_all_pages
from features.images.survey import Choice, choose_intensity, survey_images


def table_of_pages(table: ImageTable, options: ExtractionOptions) -> ImageTable:
    """Returns the table with the rows that ``--pages`` asks for."""
    return with_all_pages(table) if options.pages == "all" else table


def pages_of(table: ImageTable) -> str:
    """Returns what a store records of its pages: ``all`` where a row is a page of a file with several."""
    return "all" if any(source_of(table.folder, path) != table.folder / path for path in table.paths) else "first"


def scale_of(table: ImageTable, options: ExtractionOptions, recorded: str | None) -> Choice:
    """Returns the scale of all images of more than 8 bits: told, recorded, or chosen by what the images hold.

    Args:
        table: The images.
        options: Those of the extraction.
        recorded: What the store says that is gone on with; None for a new store.

    Raises:
        InputError: What was told is no scale.
    """
    told = options.scale
    if recorded is not None:
        return Choice(recorded if told is None else str(told))
    sources = [source_of(table.folder, path) for path in table.paths]
    return choose_intensity(survey_images(sources, options.max_pixels), told)
