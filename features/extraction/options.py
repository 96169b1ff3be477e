"""What an extraction can be told: the options of ``features.extract``, and the keyword arguments of ``extract``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from features.extraction.backbone_spec import BACKBONES, IMAGENET, BackboneSpec
from features.images.pages import Pages
from features.images.patients import GROUP_PATTERN
from features.images.reading import MAX_PIXELS
from features.images.views import View, parse_views
from features.runtime.backend import Backend
from features.runtime.options import joined, text_of
from features.store.intensity import Intensity, parse_intensity


class ExtractionOptions(BaseModel):
    """How images become features. In Python ``views`` may be a list of names, and ``weights`` a path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = Field(default=BackboneSpec.name, description=f"One of {', '.join(BACKBONES)}.")
    weights: Annotated[str, BeforeValidator(text_of)] = Field(
        default=IMAGENET, description="imagenet (downloaded once by Keras), random, random:SEED, or a file."
    )
    alpha: float | None = Field(default=None, description="Width multiplier of mobilenet and mobilenet_v2.")
    image_size: int | None = Field(default=None, description="Side in pixels; else the backbone's own.")
    preprocessing: str = Field(
        default=BackboneSpec.preprocessing,
        description="backbone: what keras.applications defines; unit: x / 255, as the article did.",
    )
    views: Annotated[str, BeforeValidator(joined)] = Field(
        default="identity",
        description="Variants of each image, joined by commas: identity, flip, shift:X:Y, rotate:DEGREES, "
        "zoom:FACTOR, contrast:FACTOR, or several of these joined by +.",
    )
    batch_size: int = Field(default=32, ge=1, le=65536, description="Images in a forward pass.")
    group_pattern: str = Field(
        default=GROUP_PATTERN,
        description="Regular expression whose group is the patient in a file's name or path, ending left off.",
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
        default=MAX_PIXELS, ge=1, le=1 << 40, description="Skip an image of more pixels: it may be a bomb."
    )
    limit: int | None = Field(default=None, ge=1, description="At most this many files, evenly from the classes.")
    update: bool = Field(
        default=False,
        description="Make a store whose images have changed that of the images as they are: new and changed ones are "
        "computed, the rest is kept. Needs the room of a second store until it is done.",
    )
    strict: bool = Field(default=False, description="Stop at an image that cannot be decoded.")
    backend: Backend | None = Field(default=None, description="Keras backend; else tensorflow.")

    @property
    def spec(self) -> BackboneSpec:
        """The backbone.

        Raises:
            InputError: There is no such backbone, or its options do not fit it.
        """
        return BackboneSpec(
            name=self.backbone,
            weights=self.weights,
            image_size=self.image_size,
            alpha=self.alpha,
            preprocessing=self.preprocessing,
        )

    @property
    def scale(self) -> Intensity | None:
        """What the user told of black and white.

        Raises:
            InputError: It is no scale.
        """
        return None if self.intensity is None else parse_intensity(self.intensity)

    @property
    def variants(self) -> tuple[View, ...]:
        """The views of each image.

        Raises:
            InputError: One of the names is no view's.
        """
        return tuple(parse_views(self.views))
