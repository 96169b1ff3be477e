"""The scale of an extraction's images, before anything is decoded for good."""

from __future__ import annotations

from features.extraction.options import ExtractionOptions
from features.images.folder import ImageTable
from features.images.pages import source_of
from features.images.survey import Choice, choose_intensity, survey_images
from features.store.kind import EIGHT_BITS


def scale_of(table: ImageTable, options: ExtractionOptions, recorded: str | None) -> Choice:
    """Returns the scale of all images of more than 8 bits: told, recorded, or chosen by what the images hold.

    Args:
        table: The images.
        options: Those of the extraction.
        recorded: What the store says that is gone on with; None for a new store. One that is updated and in which
            nothing was scaled yet leaves the choice to the images that are new.

    Raises:
        InputError: What was told is no scale.
    """
    told = options.scale
    undecided = recorded is None or (options.update and recorded == EIGHT_BITS)
    if recorded is not None and not undecided:
        return Choice(recorded if told is None else str(told))
    sources = [source_of(table.folder, path) for path in table.paths]
    return choose_intensity(survey_images(sources, options.max_pixels), told)
