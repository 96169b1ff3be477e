"""What an extraction can be told: the options of ``features.extract``, and the keyword arguments of ``extract``."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from features.extraction.applications import BACKBONES
from features.extraction.backbone_spec import IMAGENET, BackboneSpec
from features.extraction.combinations import backbones_of, combined, sizes_of
from features.extraction.views_by_images import AUTO, rule
from features.images.columns import USUAL, ColumnChoice
from features.images.pages import Pages
from features.images.patients import GROUP_PATTERN
from features.images.reading import MAX_PIXELS
from features.images.views import View, parse_views
from features.runtime.backend import UNLESS_TOLD, Backend
from features.runtime.errors import InputError
from features.runtime.options import ShownAs, joined, option_name, text_of
from features.store.class_names import split_names
from features.store.intensity import Intensity, parse_intensity


def _of_column(role: str) -> str:
    return f"Column of --table with the {role}; else {', '.join(USUAL[role])}, in whatever case."


def _names_joined(given: Any) -> Any:
    """Makes a name, a path or a list of such what the command line has of it."""
    return text_of(given) if isinstance(given, str | os.PathLike) else joined(given)


def _numbers_joined(given: Any) -> Any:
    return str(given) if isinstance(given, Integral) else joined(given)


class ExtractionOptions(BaseModel):
    """How images become features.

    In Python ``backbone`` and ``weights`` may be paths, and what the command takes joined by commas a list.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Annotated[str, BeforeValidator(_names_joined)] = Field(
        default=BackboneSpec.name,
        description=f"A Keras file that holds a whole network (.keras, .h5), or one of {', '.join(BACKBONES)}.",
    )
    layer: Annotated[str | None, BeforeValidator(joined)] = Field(
        default=None,
        description="Cut the backbone at this layer, one of those that features.extract --list-layers shows; else "
        "its own output.",
    )
    weights: Annotated[str, BeforeValidator(_names_joined)] = Field(
        default=IMAGENET, description="imagenet (downloaded once by Keras), random, random:SEED, or a file."
    )
    alpha: float | None = Field(default=None, description="Width multiplier of the mobilenets.")
    image_size: Annotated[str | None, BeforeValidator(_numbers_joined)] = Field(
        default=None,
        description="Side in pixels; else the backbone's own.",
    )
    preprocessing: Annotated[str, BeforeValidator(joined)] = Field(
        default=BackboneSpec.preprocessing,
        description="backbone: what keras.applications defines, or the file holds; unit: x / 255, as the article did; "
        "tf: -1 to 1; torch, caffe: by ImageNet's means; none: 0 to 255.",
    )
    resize: Literal["squash", "pad", "crop"] = Field(
        default="squash",
        description="How an image becomes a square: squash stretches it, pad keeps its aspect ratio and adds black, "
        "crop keeps it and takes the middle. Recorded, and used by heads.predict.",
    )
    views: Annotated[str, BeforeValidator(joined)] = Field(
        default=AUTO,
        description="Variants of each image, joined by commas: identity, flip, shift:RIGHT:DOWN, rotate:DEGREES, "
        f"zoom:FACTOR, contrast:FACTOR, or several of these joined by +. {AUTO}: {rule()}.",
    )
    batch_size: int = Field(default=32, ge=1, le=65536, description="Images in a forward pass.")
    group_pattern: Annotated[str, ShownAs("of names as CLASS-PATIENT-IMAGE")] = Field(
        default=GROUP_PATTERN,
        description="Regular expression whose group is the patient in a file's name or path, ending left off; "
        "'' for none.",
    )
    table: Path | None = Field(
        default=None,
        description="CSV, TSV or Parquet file with a row for each image: IMAGES is then any folder that holds them; "
        "paths, classes, patients and parts are its columns. In Python a DataFrame as well.",
    )
    path_column: str | None = Field(default=None, description=_of_column("path"))
    label_column: str | None = Field(default=None, description=_of_column("label"))
    patient_column: str | None = Field(default=None, description=f"{_of_column('patient')} '' for none.")
    part_column: str | None = Field(default=None, description=f"{_of_column('part')} '' for none.")
    label_columns: Annotated[str | None, BeforeValidator(joined)] = Field(
        default=None,
        description="Columns of --table that say 1 for one class each, joined by commas, instead of --label-column.",
    )
    classes: Annotated[str | None, BeforeValidator(joined)] = Field(
        default=None,
        description="Names of the classes, joined by commas; the labels in --table are these names, or numbers from 0 "
        "if none of the names is one.",
    )
    dtype: Literal["float16", "float32"] = Field(default="float16", description="Of the features.")
    intensity: str | None = Field(
        default=None,
        description="LOW:HIGH, what is black and what is white in images of more than 8 bits, e.g. 0:4095; else by "
        "their type and declared bits. Recorded, and used by heads.predict.",
    )
    pages: Pages = Field(
        default="first",
        description="Of a file with several pages, the first, or all, each a row of the same patient.",
    )
    max_pixels: int = Field(
        default=MAX_PIXELS,
        ge=1,
        le=1 << 40,
        description="Skip an image of more pixels: it may be a decompression bomb.",
    )
    limit: int | None = Field(default=None, ge=1, description="At most this many files, evenly from the classes.")
    update: bool = Field(
        default=False,
        description="Make a store whose images have changed that of the images as they are: new and changed ones are "
        "computed, the rest is kept. Needs the room of a second store until it is done.",
    )
    strict: bool = Field(
        default=False,
        description="Stop at an image that cannot be decoded or has no row in --table, and at a row that has no image.",
    )
    backend: Backend | None = Field(default=None, description=f"Keras backend; else {UNLESS_TOLD}.")

    @property
    def backbones(self) -> tuple[str, ...]:
        """The backbones as they were told.

        Raises:
            InputError: There is nothing between two commas.
        """
        return backbones_of(self.backbone)

    @property
    def image_sizes(self) -> tuple[int | None, ...]:
        """The sizes as they were told; None for the backbone's own.

        Raises:
            InputError: One is no whole number, or is there twice.
        """
        return sizes_of(self.image_size)

    @property
    def specs(self) -> dict[str, BackboneSpec]:
        """Every backbone at every size, by the name of its store among several.

        Raises:
            InputError: There is no such backbone, its options do not fit it, or two stores would have the same name.
        """
        return combined(
            self.backbone,
            self.image_size,
            layer=self.layer or "",
            weights=self.weights,
            alpha=self.alpha,
            preprocessing=self.preprocessing,
        )

    @property
    def spec(self) -> BackboneSpec:
        """The backbone, where there is one at one size.

        Raises:
            InputError: As ``specs``; or there are several.
        """
        for field, told in (("backbone", self.backbones), ("image_size", self.image_sizes)):
            if len(told) > 1:
                hint = "the command features.extract, in Python extract_several, makes a store for each of several"
                raise InputError(
                    option_name(field), expected="one, for one store", found=", ".join(map(str, told)), hint=hint
                )
        return next(iter(self.specs.values()))

    @property
    def columns(self) -> ColumnChoice:
        """What was told of the table's columns.

        Raises:
            InputError: Options do not go together.
        """
        if self.patient_column and self.group_pattern != GROUP_PATTERN:
            raise InputError("--group-pattern", expected="none beside --patient-column", found=self.group_pattern)
        return ColumnChoice(
            path=self.path_column,
            label=self.label_column,
            patient=self.patient_column,
            part=self.part_column,
            one_hot=_names(self.label_columns),
            classes=_names(self.classes),
        )

    def refuse_columns(self) -> None:
        """Refuses options that say something of a table where there is none.

        Raises:
            InputError: There is such an option.
        """
        for field in ("path_column", "label_column", "patient_column", "part_column", "label_columns", "classes"):
            if (told := getattr(self, field)) is not None:
                raise InputError(option_name(field), expected="--table beside it", found=told or "none")

    def check(self) -> None:
        """Makes sure of views and scale, before any image is looked at.

        Raises:
            InputError: As ``variants`` and ``scale``.
        """
        _ = self.variants, self.scale

    @property
    def scale(self) -> Intensity | None:
        """What the user told of black and white.

        Raises:
            InputError: It is no scale.
        """
        return None if self.intensity is None else parse_intensity(self.intensity)

    @property
    def variants(self) -> tuple[View, ...] | None:
        """The views of each image; None where they are left to the images.

        Raises:
            InputError: One of the names is no view's.
        """
        return None if self.views == AUTO else parse_views(self.views)


def _names(told: str | None) -> tuple[str, ...]:
    return () if told is None else split_names(told)
