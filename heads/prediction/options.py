"""How images are predicted: the options that the command and the Python door share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from features.images.views import View, parse_views
from features.runtime.options import joined
from heads.files.backbone import NamedBackbone
from heads.files.metadata import HeadMetadata


class PredictOptions(NamedBackbone):
    """How images are predicted. A field is an option of ``heads.predict`` and a keyword of ``LoadedHead``'s methods.

    Attributes:
        views: Names of the views of each image to average over, with commas between, or as a list; else the head's.
        batch_size: Images in a forward pass.
    """

    views: Annotated[str | None, BeforeValidator(joined)] = Field(
        default=None, description="Views to average over, e.g. identity,flip; else the head's."
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Images in a forward pass.")

    def views_for(self, metadata: HeadMetadata) -> Sequence[View]:
        """Returns the views to average over.

        Raises:
            InputError: There is no such view.
        """
        return parse_views(",".join(metadata.views) if self.views is None else self.views)
