"""How images are predicted: the options that the command and the Python door share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from pydantic import BeforeValidator, Field

from features.images.pages import Pages
from features.images.reading import MAX_PIXELS, Reading
from features.images.views import View, parse_views
from features.runtime.options import joined
from features.store.intensity import parse_intensity
from heads.files.backbone import NamedBackbone
from heads.files.metadata import HeadMetadata

NamedClasses = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="A,B,...",
        help="Names of the classes, in the order of the outputs, of a head whose file names none.",
        show_default=False,
    ),
]
"""An option of the commands that take a head."""


class PredictOptions(NamedBackbone):
    """How images are predicted. A field is an option of ``heads.predict`` and a keyword of ``LoadedHead``'s methods.

    Attributes:
        views: Names of the views of each image to average over, with commas between, or as a list; else the head's.
        batch_size: Images in a forward pass.
        intensity: What is black and what is white in images of more than 8 bits, ``LOW:HIGH``; else as the head's file
            says.
        pages: Of a file with several pages, the first or all.
        max_pixels: An image of more pixels cannot be used.
    """

    views: Annotated[str | None, BeforeValidator(joined)] = Field(
        default=None, description="Views to average over, e.g. identity,flip; else the head's."
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Images in a forward pass.")
    intensity: str | None = Field(
        default=None, description="LOW:HIGH, black and white in images of more than 8 bits; else as the head's."
    )
    pages: Pages = Field(default="first", description="Of a file with several pages, the first, or all.")
    max_pixels: int = Field(
        default=MAX_PIXELS,
        ge=1,
        le=1 << 40,
        description="Refuse an image of more pixels: it may be a decompression bomb.",
    )

    def reading_for(self, metadata: HeadMetadata) -> Reading:
        """Returns how images are read: on the head's scale, where no other is told, and as its images were resized.

        Raises:
            InputError: What was told is no scale.
        """
        resize = metadata.resize if metadata.image_size else self.resize or metadata.resize
        return Reading(parse_intensity(self.intensity or metadata.intensity), self.max_pixels, resize)

    def views_for(self, metadata: HeadMetadata) -> Sequence[View]:
        """Returns the views to average over.

        Raises:
            InputError: There is no such view.
        """
        return parse_views(",".join(metadata.views) if self.views is None else self.views)
