"""``--images``: a search that begins with images, by the same steps as an extraction and a search after it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, create_model

from features.extraction.options import ExtractionOptions
from features.runtime.errors import InputError
from features.runtime.options import option_name
from search.setup.config import StudyConfig
from search.setup.options import RunOptions

_FIELDS: dict[str, Any] = {
    name: (field.annotation, field)
    for name, field in ExtractionOptions.model_fields.items()
    if name not in RunOptions.model_fields
}
ImageOptions: type[BaseModel] = create_model("ImageOptions", **_FIELDS)
"""The options of an extraction that a search takes beside its own: all whose name means nothing else there."""


@dataclass(frozen=True)
class ImagesGiven:
    """Images to extract before a search.

    Attributes:
        images: Their folder.
        options: Of the extraction, those that were given, by name. A table may be a DataFrame.
    """

    images: Path
    options: Mapping[str, Any]


def take_images(told: dict[str, Any]) -> ImagesGiven | None:
    """Takes what is for the extraction out of the keyword arguments of a search; ``images`` itself stays.

    Raises:
        InputError: There is something, but no images; or these are no path.
    """
    given = {name: told.pop(name) for name in ImageOptions.model_fields if name in told}
    given = {name: value for name, value in given.items() if value is not None and value is not False}
    images = told.get("images")
    if images is None:
        if given:
            raise InputError(option_name(next(iter(given))), expected="--images beside it", found="none")
        return None
    if not isinstance(images, str | os.PathLike):
        raise InputError("--images", expected="the path of a folder", found=type(images).__name__)
    return ImagesGiven(Path(images), given)


def store_of_images(folder: Path, images: Path) -> Path:
    """Returns where the store of an image folder is, unless it is told: beside the study directory, by its name."""
    return folder.parent / f"{images.absolute().resolve().name or 'images'}.h5"


def check_same_study(folder: Path, recorded: StudyConfig | None, store: Path) -> None:
    """Refuses images that a study has nothing to do with before hours are spent on them.

    Args:
        folder: The study directory.
        recorded: The study there; None for none.
        store: Where the store of the images is, or will be.

    Raises:
        InputError: Nothing is there, and the study was made with another store.
    """
    stored = recorded.stores.features.path if recorded else None
    if store.exists() or stored is None or Path(stored) == store.absolute():
        return
    hint = "--out names another study directory"
    raise InputError(folder, field="stores.features", expected=f"a study of {store}", found=stored, hint=hint)
